import { Alert, Card, SimpleGrid, Stack, Text } from '@mantine/core'
import type { Schemas } from '../../api/client'
import { Overview } from '../../app/Overview'
import { bytes } from '../../parts/format'
import { UsageBar } from '../../parts/UsageBar'
import { t } from '../../strings'
import { HostDrift } from './HostDrift'

export function HostOverview({ host }: { host: Schemas['Host'] }) {
  const { pool, maintenance } = host
  return (
    <Stack>
      {host.state_reason && <Alert variant="light" color="orange" title={t.why}>{t.state(host.state_reason)}</Alert>}
      {host.agent_refused && <Alert variant="light" color="red" title={t.host.agentRefused}>{host.agent_refused}</Alert>}
      {host.agent_outdated && <Alert variant="light" color="orange" title={t.host.agentOutdated}>{t.host.agentOutdatedHint}</Alert>}
      {maintenance.state !== 'none' && (
        <Alert variant="light" color={maintenance.state === 'drained' ? 'teal' : 'orange'} title={t.host.maintenance(maintenance.state, maintenance.left, maintenance.instances)}>
          {maintenance.unknown_guests && <Text size="sm">{maintenance.unknown_guests}</Text>}
          {maintenance.remaining.map((one) => <Text size="sm" key={one.instance.id}>{one.project}/{one.instance.name}: {one.message ?? t.state(one.phase)}</Text>)}
        </Alert>
      )}
      {host.fencing && (
        <Alert variant="light" color={host.fencing.state === 'off' ? 'teal' : 'orange'} title={t.host.fencing(host.fencing.state, host.fencing.attempts)}>{host.fencing.detail}</Alert>
      )}
      {host.inventory?.acceleration_detail && <Alert variant="light" color="gray">{host.inventory.acceleration_detail}</Alert>}
      <HostDrift host={host} />
      <SimpleGrid cols={{ base: 1, sm: 3 }}>
        {(['vcpus', 'memory_mib', 'disk_gib'] as const).map((key) => (
          <Card withBorder key={key}><UsageBar resource={key} used={host[key].reserved} limit={host[key].total} /></Card>
        ))}
      </SimpleGrid>
      {pool && <Text size="sm" c="dimmed">{t.host.pool}: {bytes(pool.total_bytes - pool.free_bytes)} / {bytes(pool.total_bytes)}</Text>}
      <Overview row={host} />
    </Stack>
  )
}
