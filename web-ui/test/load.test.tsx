// @vitest-environment happy-dom
import { fireEvent, screen, within } from '@testing-library/react'
import { describe, expect, test, vi } from 'vitest'
import type { Schemas } from '../src/api/client'
import type { Instance } from '../src/resources/instances'
import { Answer as GuestAnswer, Guest } from '../src/resources/instances/Guest'
import { Load } from '../src/resources/instances/load'
import { PartLoad } from '../src/resources/instances/load/PartLoad'
import { CHARTS, columnsOf, partOf, summaryOf, topOf } from '../src/resources/instances/load/series'
import { answer, asked, problem, shown } from './render'

// It draws on a canvas, of which there is none here.
const drawn = vi.hoisted(() => [] as unknown[])
vi.mock('uplot', () => ({ default: class { constructor(_: unknown, data: unknown) { drawn.push(data) } setData() {} setSize() {} destroy() {} } }))

const START = Date.UTC(2026, 0, 2, 12)
const point = (step: number, values: object) => ({ at: new Date(START + step * 15_000).toISOString(), vcpus: 2, volumes: [], ports: [], ...values })
const metricsOf = (...items: object[]) => ({
  instance_id: 'i', from: new Date(START).toISOString(), to: new Date(START + 3_600_000).toISOString(), step_seconds: 15, items,
}) as unknown as Schemas['InstanceMetrics']
const web = { id: 'i', name: 'web', state: 'running' } as Instance
const path = '/v1/projects/demo/instances/i'

describe('what was measured', () => {
  test('is drawn with a gap where nothing was', () => {
    const columns = columnsOf(metricsOf(point(0, { cpu_percent: 10 }), point(1, {}), point(5, { cpu_percent: 30 })), ['cpu_percent'])
    const at = START / 1000
    expect(columns).toEqual([[at, at + 15, at + 30, at + 75], [10, null, null, 30]])
  })

  test('is told in words', () => {
    const { items } = metricsOf(point(0, { cpu_percent: 10 }), point(1, { cpu_percent: 60 }), point(2, { cpu_percent: 20 }), point(3, {}))
    expect(summaryOf(items, 'cpu_percent')).toEqual({ now: 20, average: 30, most: 60, at: new Date(START + 15_000) })
    expect(summaryOf(items, 'memory_used_bytes')).toBeUndefined()
  })

  test('lies below the end of its axis', () => {
    for (const { unit } of CHARTS) {
      expect(topOf(unit, 0)).toBe(unit.least)
      for (const most of [0.5, 3, 101, 70_000, 2 ** 31, 2 ** 40 + 1]) {
        const top = topOf(unit, most)
        expect(top).toBeGreaterThanOrEqual(most)
        expect(top).toBeLessThanOrEqual(Math.max(unit.least, most * 1.4))
      }
    }
  })
})

describe('the load of a disk or a card', () => {
  const both = metricsOf(
    point(0, { read_bytes_per_second: 9, volumes: [{ volume_id: 'root', read_bytes_per_second: 9 }] }),
    point(1, { read_bytes_per_second: 40, volumes: [{ volume_id: 'root', read_bytes_per_second: 10 }, { volume_id: 'data', read_bytes_per_second: 2048 }], ports: [{ port_id: 'card', sent_packets_per_second: 7 }] }),
  )

  test('is what was measured of it alone, and only since it is there', () => {
    expect(columnsOf(partOf(both, { volume: 'root' }), ['read_bytes_per_second'])[1]).toEqual([9, 10])
    expect(partOf(both, { volume: 'data' }).items.map(({ read_bytes_per_second }) => read_bytes_per_second)).toEqual([2048])
    expect(partOf(both, { port: 'data' }).items).toEqual([])
  })

  test('has its own charts, words and table', async () => {
    drawn.length = 0
    answer({ [`GET ${path}/metrics`]: both })
    shown(<PartLoad instance={web} project="demo" part={{ volume: 'data' }} name="data" />)
    await screen.findByText(/^read: now 2 KiB\/s, on average 2 KiB\/s/)
    expect(drawn).toHaveLength(2)
    expect(screen.getAllByRole('heading').map(({ textContent }) => textContent)).toEqual(['Disks', 'Disk requests'])
    fireEvent.click(screen.getByRole('switch', { name: 'As a table' }))
    const table = screen.getByRole('region', { name: 'What data used' })
    expect(within(table).getAllByRole('columnheader')).toHaveLength(5)
    expect(within(table).getAllByRole('row')).toHaveLength(2)
  })

  test('of a card is what passes through it', async () => {
    answer({ [`GET ${path}/metrics`]: both })
    shown(<PartLoad instance={web} project="demo" part={{ port: 'card' }} name="eth0" />)
    await screen.findByText(/^sent: now 7\/s/)
    expect(screen.getAllByRole('heading').map(({ textContent }) => textContent)).toEqual(['Network', 'Packets'])
  })

  test('is nothing where no instance has it, and asks nothing', () => {
    shown(<PartLoad instance={undefined} project="demo" part={{ port: 'card' }} name="eth0" />)
    screen.getByText(/No instance has it/)
    expect(asked).toEqual([])
  })
})

describe('the load of an instance', () => {
  test('is drawn, said in words, and there as a table', async () => {
    answer({ [`GET ${path}/metrics`]: metricsOf(point(0, { cpu_percent: 10, memory_size_bytes: 2 ** 31 }), point(1, { cpu_percent: 30, memory_size_bytes: 2 ** 31 })) })
    drawn.length = 0
    shown(<Load instance={web} project="demo" />)
    await screen.findByText(/of all vCPUs: now 30 %, on average 20 %, at most 30 % at \d\d:\d\d/)
    expect(drawn).toHaveLength(CHARTS.length)
    screen.getByText(/virtio_balloon/)
    fireEvent.click(screen.getByRole('switch', { name: 'As a table' }))
    const table = screen.getByRole('region', { name: 'What web used' })
    expect(within(table).getAllByRole('row')).toHaveLength(3)
    within(table).getByText('30 %')
    expect(within(table).getAllByText('2 GiB')).toHaveLength(2)
  })

  test('is asked for as far back as one wants', async () => {
    answer({ [`GET ${path}/metrics`]: metricsOf() })
    shown(<Load instance={web} project="demo" />)
    await screen.findByText('Nothing was measured in this time')
    screen.getByText(/The first values appear/)
    fireEvent.click(screen.getByRole('radio', { name: '3 hours' }))
    await vi.waitFor(() => expect(asked).toHaveLength(2))
    const ages = asked.map((call) => (Date.now() - Date.parse(new URL(call.path, 'http://x').searchParams.get('from') ?? '')) / 3_600_000)
    expect(ages.map(Math.round)).toEqual([1, 3])
  })

  test('teaches what to do while it is stopped', async () => {
    answer({ [`GET ${path}/metrics`]: metricsOf() })
    shown(<Load instance={{ ...web, state: 'stopped' } as Instance} project="demo" />)
    await screen.findByText(/Start it, and what it uses appears here/)
  })
})

describe('what a guest says', () => {
  const said = (agent: string, more = {}) => ({ instance_id: 'i', agent, interfaces: [], filesystems: [], ...more }) as unknown as Schemas['InstanceGuest']

  test('is shown as text, and as not checked', () => {
    const hostile = '<img src=x onerror=alert(1)>'
    shown(<GuestAnswer said={said('answering', {
      seen_at: new Date().toISOString(), hostname: hostile, time_zone: 'CET', clock_offset_ms: -2300, os: { pretty_name: 'Debian 13', kernel_release: '6.12' },
      interfaces: [{ name: 'eth0', addresses: [{ address: '10.0.0.7', prefix_length: 24 }] }, { name: 'eth1' }],
      filesystems: [{ mount_point: '/', device: 'vda1', kind: 'ext4', total_bytes: 2 ** 31, used_bytes: 2 ** 30 }, { mount_point: '/boot', device: 'vda2', kind: 'vfat' }],
    })} />)
    for (const text of [hostile, 'Debian 13', '6.12', 'CET, 2.3 s behind its host’s', '10.0.0.7', '1 GiB of 2 GiB']) screen.getByText(text)
    screen.getByText(/Nothing of it is checked/)
    expect(document.querySelector('img')).toBeNull()
  })

  test('is taught how to be had where nobody answers', () => {
    shown(<GuestAnswer said={said('no_agent')} />)
    screen.getByText(/apt install qemu-guest-agent/)
  })

  test('is left out for whoever may not see it', async () => {
    answer({ [`GET ${path}/guest`]: problem(403, 'forbidden') })
    shown(<Guest instance={web} project="demo" />)
    screen.getByRole('region', { name: 'The guest says' })
    await vi.waitFor(() => expect(screen.queryByRole('region')).toBeNull())
  })
})
