import { Card, Group, Paper, SegmentedControl, SimpleGrid, Stack, Switch, Text, Title } from '@mantine/core'
import { keepPreviousData, useQuery } from '@tanstack/react-query'
import { useState } from 'react'
import { call, fill, type Schemas } from '../../../api/client'
import { ProblemAlert } from '../../../parts/ProblemAlert'
import { t } from '../../../strings'
import { insight } from '../../../strings/insight'
import { Chart } from './Chart'
import { Numbers } from './Numbers'
import { chartsOf, clock, columnsOf, partOf, summaryOf, type ChartSpec, type Part } from './series'

/** As often as hosts measure. */
const LOOK_MS = 15_000
const HOUR = '3600'

type Metrics = Schemas['InstanceMetrics']

interface Props {
  instance: { id: string; name: string; state?: string }
  project: string
  /** The disk or the card that it is about, and its name; the whole instance unless given. */
  part?: Part
  name?: string
}

/** What an instance uses of processors, memory, disks and network, and how that came; it goes on while it is seen. */
export function Load({ instance, project, part, name = instance.name }: Props) {
  const [span, setSpan] = useState(HOUR)
  const [numbers, setNumbers] = useState(false)
  const metrics = useQuery({
    queryKey: ['projects', project, 'instances', instance.id, 'metrics', span],
    queryFn: ({ signal }) => {
      const from = new Date(Date.now() - Number(span) * 1000).toISOString()
      return call<Metrics>('GET', fill('/v1/projects/{project}/instances/{id}/metrics', { project, id: instance.id }), { query: { from }, signal })
    },
    refetchInterval: LOOK_MS,
    placeholderData: keepPreviousData,
  })
  const charts = chartsOf(part)
  const data = metrics.data && part ? partOf(metrics.data, part) : metrics.data
  return (
    <Stack>
      <Group justify="space-between">
        <SegmentedControl aria-label={insight.span} size="xs" value={span} onChange={setSpan} data={Object.entries(insight.spans).map(([value, label]) => ({ value, label }))} />
        <Switch size="sm" label={insight.table} checked={numbers} onChange={(event) => setNumbers(event.currentTarget.checked)} />
      </Group>
      <ProblemAlert error={metrics.error} retry={() => void metrics.refetch()} />
      {metrics.isLoading && <Text size="sm" c="dimmed" role="status">{t.table.loading}</Text>}
      {data?.items.length === 0 && (
        <Paper withBorder p="xl" ta="center">
          <Text fw={600}>{insight.empty.title}</Text>
          <Text c="dimmed" size="sm" mt="xs">{part ? insight.empty.part : instance.state === 'running' ? insight.empty.running : insight.empty.stopped}</Text>
        </Paper>
      )}
      {data && data.items.length > 0 && (numbers ? <Numbers name={name} metrics={data} charts={charts} /> : <Charts metrics={data} charts={charts} />)}
    </Stack>
  )
}

function Charts({ metrics, charts }: { metrics: Metrics; charts: readonly ChartSpec[] }) {
  return (
    <>
      <SimpleGrid cols={{ base: 1, lg: 2 }} spacing="md">
        {charts.map((spec) => <Figure key={spec.name} spec={spec} metrics={metrics} />)}
      </SimpleGrid>
      <Text size="xs" c="dimmed">{insight.step(metrics.step_seconds)}</Text>
    </>
  )
}

/** A chart, and the same in words. */
function Figure({ spec, metrics }: { spec: ChartSpec; metrics: Metrics }) {
  const known = spec.lines.map((line) => [line, summaryOf(metrics.items, line)] as const)
  const words = spec.unit.words
  return (
    <Card withBorder padding="md" component="figure" m={0} style={{ minWidth: 0 }}>
      <Title order={2} size="h5" mb={4}>{insight.charts[spec.name]}</Title>
      <Chart spec={spec} columns={columnsOf(metrics, spec.lines)} from={Date.parse(metrics.from) / 1000} to={Date.parse(metrics.to) / 1000} />
      <figcaption>
        {known.map(([line, summary]) => summary && <Text key={line} size="xs" c="dimmed">{insight.summary(insight.lines[line], words(summary.now), words(summary.average), words(summary.most), clock(summary.at))}</Text>)}
        {known.every(([, summary]) => !summary) && <Text size="xs" c="dimmed">{insight.unknown}</Text>}
        {spec.name === 'memory' && !known[0]?.[1] && <Text size="xs" c="dimmed">{insight.noBalloon}</Text>}
      </figcaption>
    </Card>
  )
}
