import 'uplot/dist/uPlot.min.css'
import { useComputedColorScheme } from '@mantine/core'
import { useEffect, useRef } from 'react'
import UPlot from 'uplot'
import { insight } from '../../../strings/insight'
import style from './Chart.module.css'
import { clock, topOf, zone, type ChartSpec, type Columns } from './series'

const HEIGHT = 190
/** Told apart by their strokes as well as by their colours. */
const DASHES = [[], [8, 4], [2, 3]]
const COLOURS = { light: ['#105fb5', '#a13a00', '#59626b'], dark: ['#77adec', '#ffa94d', '#a6adb4'] }
const INK = { light: { text: '#59626b', grid: '#e3e6e9' }, dark: { text: '#a6adb4', grid: '#3b3f44' } }
const BINARY_STEPS = Array.from({ length: 51 }, (_, power) => 2 ** power)

interface Props {
  spec: ChartSpec
  columns: Columns
  /** Seconds since 1970: what is shown, whether or not it was measured. */
  from: number
  to: number
}

/** Lines over time. What they show is said in words beside it, so this is not read aloud. */
export function Chart({ spec, columns, from, to }: Props) {
  const box = useRef<HTMLDivElement>(null)
  const plot = useRef<UPlot | undefined>(undefined)
  const shown = useRef({ columns, from, to })
  shown.current = { columns, from, to }
  const scheme = useComputedColorScheme('light')
  useEffect(() => {
    const element = box.current
    if (!element) return
    const { text, grid } = INK[scheme]
    const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: '12px system-ui, sans-serif', labelFont: '12px system-ui, sans-serif', labelSize: 18 }
    const made = new UPlot({
      width: element.clientWidth || 300,
      height: HEIGHT,
      cursor: { sync: { key: 'load' }, drag: { x: false, y: false } },
      scales: {
        x: { range: () => [shown.current.from, shown.current.to] },
        y: { range: (_, __, most) => [0, topOf(spec.unit, most ?? 0)] },
      },
      axes: [
        { ...axis, size: 34, label: insight.zone(zone(new Date())), values: (_, splits) => splits.map((at) => clock(new Date(at * 1000))) },
        { ...axis, label: spec.unit.title, size: 78, values: (_, splits) => splits.map(spec.unit.words), ...(spec.unit.binary ? { incrs: BINARY_STEPS } : {}) },
      ],
      series: [
        { value: (_, at) => (at ? clock(new Date(at * 1000), true) : '—') },
        ...spec.lines.map((line, index) => ({
          label: insight.lines[line], stroke: COLOURS[scheme][index], width: 1.5, dash: DASHES[index], points: { size: 4 }, spanGaps: false,
          value: (_: UPlot, value: number | null) => (value === null ? '—' : spec.unit.words(value)),
        })),
      ],
    }, shown.current.columns, element)
    plot.current = made
    const watch = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }))
    watch.observe(element)
    return () => {
      watch.disconnect()
      made.destroy()
      plot.current = undefined
    }
  }, [scheme, spec])
  useEffect(() => plot.current?.setData(columns), [columns, from, to])
  return <div ref={box} className={style.chart} aria-hidden />
}
