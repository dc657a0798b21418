// What was measured, as columns that a chart draws and as words for who sees none.
import type { Schemas } from '../../../api/client'
import { bytes } from '../../../parts/format'
import { insight } from '../../../strings/insight'

type Metrics = Schemas['InstanceMetrics']
type Point = Schemas['MetricsPoint']
export type Line = keyof typeof insight.lines
export type ChartName = keyof typeof insight.charts

export interface ChartSpec {
  name: ChartName
  unit: Unit
  lines: readonly Line[]
}

/** Times in seconds since 1970, then each line's values; `null` where nothing is known. */
export type Columns = [number[], ...(number | null)[][]]

interface Unit {
  /** On the axis. */
  title: string
  words: (value: number) => string
  /** Whether steps are powers of two. */
  binary: boolean
  /** The axis reaches at least so far. */
  least: number
}

const round = (value: number) => (value < 10 ? Math.round(value * 10) / 10 : Math.round(value)).toLocaleString('en')

const PERCENT: Unit = { title: '%', words: (value) => `${round(value)} %`, binary: false, least: 100 }
const BYTES: Unit = { title: 'bytes', words: bytes, binary: true, least: 1024 * 1024 }
const RATE: Unit = { title: 'bytes per second', words: (value) => `${bytes(Math.round(value))}/s`, binary: true, least: 1024 }
const COUNT: Unit = { title: 'per second', words: (value) => `${round(value)}/s`, binary: false, least: 1 }

export const CHARTS: readonly ChartSpec[] = [
  { name: 'cpu', unit: PERCENT, lines: ['cpu_percent'] },
  { name: 'memory', unit: BYTES, lines: ['memory_used_bytes', 'memory_resident_bytes', 'memory_size_bytes'] },
  { name: 'disk', unit: RATE, lines: ['read_bytes_per_second', 'written_bytes_per_second'] },
  { name: 'requests', unit: COUNT, lines: ['read_requests_per_second', 'write_requests_per_second'] },
  { name: 'network', unit: RATE, lines: ['received_bytes_per_second', 'sent_bytes_per_second'] },
  { name: 'packets', unit: COUNT, lines: ['received_packets_per_second', 'sent_packets_per_second'] },
]

/** A disk or a card of an instance: what was measured of it stands in each point. */
export type Part = { volume: string } | { port: string }

/** The charts of a part, or of the instance as a whole. */
export const chartsOf = (part?: Part): readonly ChartSpec[] => {
  if (!part) return CHARTS
  const names: ChartName[] = 'volume' in part ? ['disk', 'requests'] : ['network', 'packets']
  return CHARTS.filter(({ name }) => names.includes(name))
}

/** What was measured of one part alone; where it was not there yet, nothing. */
export function partOf(metrics: Metrics, part: Part): Metrics {
  const items = metrics.items.flatMap(({ at, vcpus, volumes, ports }): Point[] => {
    const found = 'volume' in part ? volumes.find((one) => one.volume_id === part.volume) : ports.find((one) => one.port_id === part.port)
    return found ? [{ at, vcpus, ...found, volumes: [], ports: [] }] : []
  })
  return { ...metrics, items }
}

const valueOf = (point: Point | undefined, line: Line): number | null => point?.[line] ?? null

/** One column for the times and one for each line. A step without a point has no value, so that no line is drawn over it. */
export function columnsOf(metrics: Metrics, lines: readonly Line[]): Columns {
  const steps: (readonly [number, Point | undefined])[] = []
  let last = Infinity
  for (const point of metrics.items) {
    const at = Date.parse(point.at) / 1000
    if (at - last > metrics.step_seconds * 1.5) steps.push([last + metrics.step_seconds, undefined])
    steps.push([at, point])
    last = at
  }
  return [steps.map(([at]) => at), ...lines.map((line) => steps.map(([, point]) => valueOf(point, line)))]
}

export interface Summary {
  now: number
  average: number
  most: number
  /** When it was most. */
  at: Date
}

/** What a line comes to; nothing where nothing is known. */
export function summaryOf(items: readonly Point[], line: Line): Summary | undefined {
  const known = items.flatMap((point) => { const value = valueOf(point, line); return value === null ? [] : [{ at: point.at, value }] })
  const now = known.at(-1)
  if (!now) return undefined
  const most = known.reduce((before, one) => (one.value > before.value ? one : before))
  const average = known.reduce((sum, { value }) => sum + value, 0) / known.length
  return { now: now.value, average, most: most.value, at: new Date(most.at) }
}

/** The end of an axis: above all that is drawn on it, on a round number. */
export function topOf(unit: Unit, most: number): number {
  if (most <= unit.least) return unit.least
  const base = unit.binary ? 2 : 10
  const step = base ** Math.floor(Math.log(most) / Math.log(base)) / (unit.binary ? 4 : 10)
  return Math.ceil((most * 1.02) / step) * step
}

const hour = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' })
const second = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })

/** A time of day in the reader's zone. */
export const clock = (date: Date, seconds = false) => (seconds ? second : hour).format(date)

/** The reader's zone in few letters, such as `CET`. */
export const zone = (date: Date) => new Intl.DateTimeFormat('en-GB', { timeZoneName: 'short' }).formatToParts(date).find(({ type }) => type === 'timeZoneName')?.value ?? ''
