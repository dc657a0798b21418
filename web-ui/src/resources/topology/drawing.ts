// Where everything of a drawing is: outside, routers, networks, instances, from left to right.
import type { Schemas } from '../../api/client'
import { isOpen, portsOf } from '../security_groups/rule'

export interface Things {
  networks: Schemas['Network'][]
  subnets: Schemas['Subnet'][]
  routers: Schemas['Router'][]
  instances: Schemas['Instance'][]
  ports: Schemas['Port'][]
  groups: Schemas['SecurityGroup'][]
  floating: Schemas['FloatingIp'][]
}

export interface Node {
  id: string
  kind: 'outside' | 'routers' | 'networks' | 'instances'
  name: string
  /** In small letters below the name. */
  lines: string[]
  /** What the whole world may reach of it. */
  open: string[]
  /** The world has an address for it. */
  public: string[]
  state?: string
  x: number
  y: number
  width: number
  height: number
}

export interface Edge {
  from: string
  to: string
  text: string
}

export interface Drawing {
  nodes: Node[]
  edges: Edge[]
  width: number
  height: number
  /** Instances that there is no room for. */
  left: number
}

export const OUTSIDE = 'outside'
/** More are not told apart in a drawing. */
export const MOST = 200
const COLUMNS = { outside: { x: 0, width: 96 }, routers: { x: 160, width: 150 }, networks: { x: 380, width: 190 }, instances: { x: 650, width: 260 } }
const ROW = 64
const GAP = 12
const BETWEEN = 28
const LEAST = 96
const EDGE = 8

/** What of a port's security groups lets everybody in, like `tcp 443`. */
export function opened(groups: Schemas['SecurityGroup'][], port: Pick<Schemas['Port'], 'security_groups'>): string[] {
  const ids = new Set(port.security_groups.map(({ id }) => id))
  const rules = groups.filter(({ id }) => ids.has(id)).flatMap((group) => group.rules.filter(isOpen))
  return [...new Set(rules.map((rule) => (portsOf(rule) === '—' ? String(rule.protocol) : `${String(rule.protocol)} ${portsOf(rule)}`)))].toSorted()
}

export function draw(things: Things, filter = ''): Drawing {
  const byName = <T extends { name: string }>(rows: T[]) => rows.toSorted((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }))
  const wanted = byName(things.instances).filter(({ name }) => name.includes(filter))
  const shown = wanted.slice(0, MOST)
  const networks = byName(things.networks)
  const nodes: Node[] = []
  const edges: Edge[] = []
  let y = EDGE
  for (const network of [...networks, undefined]) {
    const own = shown.filter((instance) => instance.nics[0]?.network.id === network?.id)
    if (!network && own.length === 0) continue
    const height = Math.max(LEAST, own.length * (ROW + GAP) - GAP)
    own.forEach((instance, index) => nodes.push(instanceNode(things, instance, y + index * (ROW + GAP) + (own.length === 1 ? (height - ROW) / 2 : 0))))
    if (network) {
      const lines = things.subnets.filter((subnet) => subnet.network.id === network.id).map(({ cidr }) => cidr)
      nodes.push({ id: network.id, kind: 'networks', name: network.name, lines, open: [], public: [], y, height, ...COLUMNS.networks })
    }
    y += height + BETWEEN
  }
  const centre = (id: string) => { const node = nodes.find((one) => one.id === id); return node ? node.y + node.height / 2 : EDGE }
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length)
  const routers = byName(things.routers)
    .map((router) => ({ router, at: mean(router.interfaces.map(({ network_id }) => centre(network_id))) }))
    .toSorted((a, b) => a.at - b.at)
  let free = EDGE
  for (const { router, at } of routers) {
    const top = Math.max(free, at - ROW / 2)
    nodes.push({ id: router.id, kind: 'routers', name: router.name, lines: router.interfaces.map(({ address }) => address).slice(0, 2), open: [], public: [], y: top, height: ROW, ...COLUMNS.routers })
    free = top + ROW + GAP
    for (const { network_id, address } of router.interfaces) edges.push({ from: router.id, to: network_id, text: address })
    if (router.external) edges.push({ from: OUTSIDE, to: router.id, text: '' })
  }
  const ways = routers.filter(({ router }) => router.external).map(({ router }) => centre(router.id))
  const outside = ways.length > 0 ? mean(ways) : EDGE + ROW / 2
  nodes.push({ id: OUTSIDE, kind: 'outside', name: '', lines: [], open: [], public: [], y: Math.max(EDGE, outside - ROW / 2), height: ROW, ...COLUMNS.outside })
  for (const instance of shown) for (const nic of instance.nics) edges.push({ from: nic.network.id, to: instance.id, text: nic.addresses.join(', ') })
  const known = new Set(nodes.map(({ id }) => id))
  return {
    nodes, edges: edges.filter(({ from, to }) => known.has(from) && known.has(to)), left: wanted.length - shown.length,
    width: COLUMNS.instances.x + COLUMNS.instances.width + EDGE, height: Math.max(y, free) + EDGE,
  }
}

function instanceNode({ ports, groups, floating }: Things, instance: Schemas['Instance'], y: number): Node {
  const cards = instance.nics.map(({ port }) => port.id)
  const own = ports.filter(({ id }) => cards.includes(id))
  return {
    id: instance.id, kind: 'instances', name: instance.name, state: instance.state, y, height: ROW, ...COLUMNS.instances,
    lines: [instance.nics.flatMap(({ addresses }) => addresses).join(', ')],
    open: [...new Set(own.flatMap((port) => opened(groups, port)))],
    public: floating.filter(({ port_id }) => port_id && cards.includes(port_id)).map(({ address }) => address),
  }
}
