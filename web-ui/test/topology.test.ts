import { describe, expect, test } from 'vitest'
import { draw, MOST, opened, OUTSIDE, type Things } from '../src/resources/topology/drawing'

const rule = (protocol: string, port: number | null, remote_cidr: string | null, direction = 'ingress') => ({ id: 'r', protocol, port_first: port, port_last: port, remote_cidr, direction, description: '', created_at: '' })
const instance = (id: string, ...networks: string[]) => ({ id, name: id, state: 'running', nics: networks.map((network) => ({ port: { id: `${id}-${network}`, name: '' }, network: { id: network, name: network }, addresses: ['10.0.0.9'], mac: '' })) })

function things(instances: object[]): Things {
  return {
    networks: [{ id: 'front', name: 'front' }, { id: 'back', name: 'back' }], subnets: [{ network: { id: 'front' }, cidr: '10.0.0.0/24' }],
    routers: [{ id: 'edge', name: 'edge', external: true, interfaces: [{ network_id: 'front', address: '10.0.0.1' }] }, { id: 'inner', name: 'inner', external: false, interfaces: [{ network_id: 'gone', address: '10.9.0.1' }] }],
    instances, ports: [{ id: 'web-front', security_groups: [{ id: 'sg', name: 'web' }] }],
    groups: [{ id: 'sg', rules: [rule('tcp', 443, '0.0.0.0/0'), rule('tcp', 22, '10.0.0.0/8'), rule('tcp', 80, '0.0.0.0/0', 'egress'), rule('icmp', null, '::/0')] }],
    floating: [{ address: '203.0.113.7', port_id: 'web-front' }, { address: '203.0.113.8', port_id: null }],
  } as unknown as Things
}

describe('the drawing of a project', () => {
  test('says what is open to everybody, and of what there is an address outside', () => {
    const { nodes } = draw(things([instance('web', 'front'), instance('db', 'back')]))
    const of = (id: string) => nodes.find((node) => node.id === id)
    expect(of('web')).toMatchObject({ open: ['icmp', 'tcp 443'], public: ['203.0.113.7'] })
    expect(of('db')).toMatchObject({ open: [], public: [] })
    expect(opened(things([]).groups, { security_groups: [] })).toEqual([])
  })

  test('leads from the outside over routers and networks to instances, and to nothing that is not there', () => {
    const { edges } = draw(things([instance('web', 'front', 'back')]))
    expect(edges.map(({ from, to }) => `${from}>${to}`).toSorted()).toEqual(['back>web', 'edge>front', 'front>web', `${OUTSIDE}>edge`])
  })

  test('puts nothing over anything else', () => {
    const { nodes, height, width } = draw(things([...Array.from({ length: 7 }, (_, index) => instance(`web-${index}`, 'front', 'back')), instance('lonely')]))
    for (const a of nodes) {
      expect(a.y + a.height, a.id).toBeLessThanOrEqual(height)
      expect(a.x + a.width, a.id).toBeLessThanOrEqual(width)
      for (const b of nodes) {
        const apart = a === b || a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y
        expect(apart, `${a.id} ${b.id}`).toBe(true)
      }
    }
  })

  test('says how many it leaves out, and the filter brings them back', () => {
    const many = Array.from({ length: MOST + 5 }, (_, index) => instance(`i-${index}`, 'front'))
    expect(draw(things(many))).toMatchObject({ left: 5 })
    expect(draw(things(many), 'i-20').nodes.filter(({ kind }) => kind === 'instances').map(({ name }) => name)).toEqual(['i-20', 'i-200', 'i-201', 'i-202', 'i-203', 'i-204'])
  })
})
