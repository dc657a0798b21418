import { Alert, Stack, Text } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import type { Schemas } from '../../api/client'
import { allRows } from '../../api/rows'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { Time } from '../../parts/Time'
import { t } from '../../strings'

/** What differs on a host from what is wanted of it; nothing when nothing does. */
export function HostDrift({ host }: { host: Schemas['Host'] }) {
  const differs = (host.drift ?? 0) > 0
  // Anew when the host has looked again.
  const queryKey = ['drift', host.id, host.drift, host.drift_looked_at]
  const query = useQuery({ queryKey, enabled: differs, queryFn: ({ signal }) => allRows<Schemas['Drift']>('/v1/drift', signal, { host: host.id }) })
  if (!differs) return null
  return (
    <Alert variant="light" color="orange" title={t.host.drift(host.drift ?? 0)}>
      <ProblemAlert error={query.error} retry={() => void query.refetch()} />
      <Stack gap="xs">
        {query.data?.map((one) => (
          <div key={one.id}>
            <Text size="sm">{one.about.kind === 'host' ? '' : `${one.about.name ?? one.about.id}: `}{one.detail} (<Time at={one.since} />)</Text>
            <Text size="xs" c="dimmed">{one.repair}</Text>
          </div>
        ))}
      </Stack>
    </Alert>
  )
}
