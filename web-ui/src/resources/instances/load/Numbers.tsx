import { Table } from '@mantine/core'
import { insight } from '../../../strings/insight'
import type { Schemas } from '../../../api/client'
import { clock, zone, type ChartSpec } from './series'
import style from './Numbers.module.css'

/** Everything that the charts draw, newest first. */
export function Numbers({ name, metrics, charts }: { name: string; metrics: Schemas['InstanceMetrics']; charts: readonly ChartSpec[] }) {
  return (
    <div className={style.box} tabIndex={0} role="region" aria-label={insight.tableOf(name)}>
      <Table stickyHeader withColumnBorders className={style.numbers}>
        <Table.Caption>{insight.tableOf(name)}. {insight.step(metrics.step_seconds)}</Table.Caption>
        <Table.Thead>
          <Table.Tr>
            <Table.Th scope="col">{insight.zone(zone(new Date(metrics.to)))}</Table.Th>
            {charts.flatMap((chart) => chart.lines.map((line) => <Table.Th key={line} scope="col" ta="right">{insight.charts[chart.name]}: {insight.lines[line]}</Table.Th>))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {metrics.items.toReversed().map((point) => (
            <Table.Tr key={point.at}>
              <Table.Th scope="row" fw={400}><time dateTime={point.at}>{clock(new Date(point.at), true)}</time></Table.Th>
              {charts.flatMap(({ unit, lines }) => lines.map((line) => <Table.Td key={line} ta="right">{typeof point[line] === 'number' ? unit.words(point[line]) : '—'}</Table.Td>))}
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </div>
  )
}
