import { Alert, Card, Group, List, Select, SimpleGrid, Stack, Text, Title } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useState } from 'react'
import { call, type Schemas } from '../../api/client'
import { useRows } from '../../api/rows'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { RowLink } from '../../parts/RowLink'
import { StateBadge } from '../../parts/StateBadge'
import { UsageBar } from '../../parts/UsageBar'
import { t } from '../../strings'
import { hosts } from '../hosts'
import { instanceTypes } from '../instance_types'

type Host = Schemas['Host']

/** How full each host is, by zone and rack, and how much more fits. */
export default function CapacityPage() {
  const rows = useRows<Host>(hosts, undefined)
  const zones = new Map<string, Host[]>()
  for (const host of rows.data ?? []) {
    const zone = [host.zone, host.rack].filter(Boolean).join(' / ') || t.capacity.elsewhere
    zones.set(zone, [...(zones.get(zone) ?? []), host])
  }
  return (
    <Stack>
      <Title order={1} size="h2">{t.capacity.title}</Title>
      <ProblemAlert error={rows.error} retry={() => void rows.refetch()} />
      <Room />
      {rows.data?.length === 0 && <Text c="dimmed">{t.capacity.none}</Text>}
      {[...zones].toSorted(([a], [b]) => a.localeCompare(b)).map(([zone, own]) => (
        <Stack key={zone} gap="xs" component="section" aria-label={zone}>
          <Title order={2} size="h5">{zone}</Title>
          <SimpleGrid cols={{ base: 1, sm: 2, lg: 3, xl: 4 }} spacing="sm">
            {own.toSorted((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true })).map((host) => <Tile key={host.id} host={host} />)}
          </SimpleGrid>
        </Stack>
      ))}
    </Stack>
  )
}

function Tile({ host }: { host: Host }) {
  return (
    <Card withBorder padding="sm">
      <Group justify="space-between" mb="xs"><Text fw={600} size="sm"><RowLink resource="hosts" project={undefined} id={host.id}>{host.name}</RowLink></Text><StateBadge state={host.cordoned ? 'cordoned' : host.state} /></Group>
      <Stack gap="xs">
        {(['vcpus', 'memory_mib', 'disk_gib'] as const).map((key) => <UsageBar key={key} resource={key} used={host[key].reserved} limit={host[key].total} />)}
      </Stack>
    </Card>
  )
}

/** How many more of a type fit, and what the loss of a host would do. */
function Room() {
  const types = useRows<Schemas['InstanceType']>(instanceTypes, undefined)
  const [chosen, setChosen] = useState<string | null>(null)
  const type = chosen ?? types.data?.[0]?.name
  const forecast = useQuery({ queryKey: ['cloud', 'hosts', 'capacity', type], queryFn: ({ signal }) => call<Schemas['CapacityForecast']>('GET', '/v1/capacity', { query: { type }, signal }), enabled: type !== undefined, retry: false })
  if (!type) return null
  const { data } = forecast
  return (
    <Card withBorder component="section" aria-label={t.capacity.room}>
      <Stack gap="sm">
        <Select label={t.capacity.type} data={(types.data ?? []).map(({ name }) => name)} value={type} onChange={setChosen} allowDeselect={false} maw={280} searchable />
        <ProblemAlert error={forecast.error} />
        {data && <Text fw={600} role="status">{t.capacity.more(data.room, data.instance_type.name)}</Text>}
        {data?.all && data.all.instances > 0 && (data.all.critical.length === 0 ? <Text size="sm">{t.capacity.whole}</Text> : (
          <Alert color="orange" variant="light" title={t.capacity.survives}>
            <List size="sm">{data.all.critical.map((loss) => <List.Item key={loss.host.id}>{t.capacity.critical(loss.host.name, loss.instances)}</List.Item>)}</List>
          </Alert>
        ))}
      </Stack>
    </Card>
  )
}
