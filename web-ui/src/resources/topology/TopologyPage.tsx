import { Button, Group, Paper, Stack, Text, TextInput, Title } from '@mantine/core'
import { useNavigate } from '@tanstack/react-router'
import { useDeferredValue, useMemo, useState, type MouseEvent } from 'react'
import { useRows } from '../../api/rows'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { t } from '../../strings'
import { floatingIps } from '../floating_ips'
import { instances } from '../instances'
import { networks } from '../networks'
import { ports } from '../ports'
import type { Resource } from '../resource'
import { routers } from '../routers'
import { securityGroups } from '../security_groups'
import { subnets } from '../subnets'
import { draw, OUTSIDE, type Drawing, type Node, type Things } from './drawing'
import style from './Topology.module.css'

const SCALES = [0.5, 0.65, 0.8, 1, 1.25, 1.6]

/** What leads where in a project, and what of it is open to the world. */
export default function TopologyPage({ project }: { project: string }) {
  const [filter, setFilter] = useState('')
  const [scale, setScale] = useState(3)
  const wanted = useDeferredValue(filter)
  const useAll = <T,>(resource: Resource) => useRows<any>(resource, project) as { data?: T; error: unknown }
  const parts = {
    networks: useAll<Things['networks']>(networks), subnets: useAll<Things['subnets']>(subnets), routers: useAll<Things['routers']>(routers), instances: useAll<Things['instances']>(instances),
    ports: useAll<Things['ports']>(ports), groups: useAll<Things['groups']>(securityGroups), floating: useAll<Things['floating']>(floatingIps),
  }
  const things = Object.values(parts).map(({ data }) => data)
  const error = Object.values(parts).find((part) => part.error)?.error
  const drawing = useMemo(() => draw({
    networks: parts.networks.data ?? [], subnets: parts.subnets.data ?? [], routers: parts.routers.data ?? [], instances: parts.instances.data ?? [],
    ports: parts.ports.data ?? [], groups: parts.groups.data ?? [], floating: parts.floating.data ?? [],
  }, wanted), [wanted, ...things])
  const text = t.topology
  return (
    <Stack>
      <Title order={1} size="h2">{text.title}</Title>
      <Text size="sm" c="dimmed">{text.teach}</Text>
      <ProblemAlert error={error} />
      <Group gap="xs">
        <TextInput type="search" size="xs" aria-label={text.filter} placeholder={text.filter} value={filter} onChange={(event) => setFilter(event.currentTarget.value)} />
        <Button size="xs" variant="default" disabled={scale === 0} onClick={() => setScale(scale - 1)} aria-label={text.smaller}>−</Button>
        <Button size="xs" variant="default" disabled={scale === SCALES.length - 1} onClick={() => setScale(scale + 1)} aria-label={text.larger}>+</Button>
        {drawing.left > 0 && <Text size="sm" c="dimmed" role="status">{text.left(drawing.left)}</Text>}
      </Group>
      {parts.networks.data?.length === 0 ? <Paper withBorder p="xl" ta="center">{text.none}</Paper> : <Picture drawing={drawing} project={project} scale={SCALES[scale] ?? 1} />}
    </Stack>
  )
}

function Picture({ drawing, project, scale }: { drawing: Drawing; project: string; scale: number }) {
  const [at, setAt] = useState<string | undefined>()
  const nodes = new Map(drawing.nodes.map((node) => [node.id, node]))
  const beside = (id: string) => drawing.edges.flatMap(({ from, to }) => (from === id ? [to] : to === id ? [from] : [])).map((other) => nameOf(nodes.get(other)))
  return (
    <div className={style.frame} role="region" aria-label={t.topology.drawing(project)} tabIndex={0}>
      <svg width={drawing.width * scale} height={drawing.height * scale} viewBox={`0 0 ${drawing.width} ${drawing.height}`} role="group" aria-label={t.topology.drawing(project)}>
        {drawing.edges.map(({ from, to, text }) => {
          const [a, b] = [nodes.get(from), nodes.get(to)]
          if (!a || !b) return null
          const [x1, y1, x2] = [a.x + a.width, middle(a, b), b.x]
          const y2 = b.kind === 'networks' ? middle(b, a) : b.y + b.height / 2
          const bend = (x2 - x1) / 2
          return <path key={`${from}${to}${text}`} className={`${style.edge} ${at === from || at === to ? style.lit : ''}`} d={`M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`} aria-hidden />
        })}
        {drawing.nodes.map((node) => <Thing key={node.id} node={node} project={project} beside={beside(node.id)} onAt={setAt} />)}
      </svg>
    </div>
  )
}

/** Where a line leaves a network, which is as high as all that is in it: as near the other end as it can. */
const middle = (node: Node, other: Node) => Math.min(node.y + node.height - 12, Math.max(node.y + 12, other.y + other.height / 2))

const nameOf = (node: Node | undefined) => (node?.kind === 'outside' ? t.topology.outside : (node?.name ?? ''))

const short = (text: string, most: number) => (text.length > most ? `${text.slice(0, most - 1)}…` : text)

function Thing({ node, project, beside, onAt }: { node: Node; project: string; beside: string[]; onAt: (id: string | undefined) => void }) {
  const navigate = useNavigate()
  const exposed = node.open.length > 0 && node.public.length > 0
  const open = node.open.length > 0 ? `${t.topology.open}: ${node.open.join(', ')}${exposed ? '' : ` (${t.topology.behind})`}` : ''
  const most = Math.floor(node.width / 7.6)
  const lines = [...node.public.map((address) => ({ text: address, open: false })), ...node.lines.slice(0, 3).map((text) => ({ text, open: false }))]
  const seen = node.kind === 'instances' ? [{ text: lines.map(({ text }) => text).join(' · '), open: false }, { text: node.open.length > 0 ? `⚠ ${node.open.join(', ')}` : '', open: true }] : lines
  const kind = node.kind === 'outside' ? '' : t.resource(node.kind).one
  const words = [[nameOf(node), ...seen.map(({ text }) => text)].filter(Boolean).join(' '), kind, node.state && t.state(node.state), open, beside.length > 0 && t.topology.goes(beside.join(', '))].filter(Boolean).join(', ')
  const inside = (
    <>
      <title>{words}</title>
      <rect className={style.box} x={node.x} y={node.y} width={node.width} height={node.height} rx={10} />
      {node.state && <circle cx={node.x + node.width - 16} cy={node.y + 18} r={5} className={style[node.state === 'running' || node.state === 'error' ? node.state : 'other']} />}
      <text className={style.name} x={node.x + 14} y={node.y + (node.kind === 'outside' ? 37 : 24)}>{short(nameOf(node), Math.floor(node.width / 9.5))}</text>
      {seen.map(({ text, open: warns }, index) => <text key={index} className={warns ? style.open : style.line} x={node.x + 14} y={node.y + 40 + index * 15}>{short(text, most)}</text>)}
    </>
  )
  const seenClass = `${style[node.kind] ?? ''} ${exposed ? style.exposed : ''}`
  if (node.id === OUTSIDE) return <g className={seenClass} role="img">{inside}</g>
  const go = (event: MouseEvent) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return
    event.preventDefault()
    void navigate({ to: '/projects/$project/$resource/$id', params: { project, resource: node.kind, id: node.id } })
  }
  return (
    <a href={`/projects/${encodeURIComponent(project)}/${node.kind}/${node.id}`} className={`${style.node} ${seenClass}`} onClick={go} onFocus={() => onAt(node.id)} onBlur={() => onAt(undefined)} onMouseEnter={() => onAt(node.id)} onMouseLeave={() => onAt(undefined)}>
      {inside}
    </a>
  )
}
