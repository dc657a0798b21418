import { Paper, Stack, Table, Text } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { call, fill, type Schemas } from '../../api/client'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { RowLink } from '../../parts/RowLink'
import { t } from '../../strings'
import type { Instance } from '.'
import { Placement as Explained } from './Why'

/** Where an instance is, and what each host has against it; for whoever runs the cloud. */
export function PlacementOf({ instance }: { instance: Instance }) {
  const detail = useQuery({ queryKey: ['cloud', 'hosts', 'placements', instance.id], queryFn: ({ signal }) => call<Schemas['PlacementDetail']>('GET', fill('/v1/placements/{instance}', { instance: instance.id }), { signal }), retry: false })
  return (
    <Stack>
      <ProblemAlert error={detail.error} />
      {detail.data?.placement && <Explained placement={detail.data.placement} />}
      {detail.data && (
        <Paper withBorder style={{ overflowX: 'auto' }}>
          <Table>
            <Table.Caption>{t.verdict.hint}</Table.Caption>
            <Table.Thead><Table.Tr><Table.Th>{t.verdict.host}</Table.Th><Table.Th>{t.field('state')}</Table.Th><Table.Th>{t.verdict.why}</Table.Th></Table.Tr></Table.Thead>
            <Table.Tbody>
              {detail.data.hosts.map((verdict) => (
                <Table.Tr key={verdict.host.id}>
                  <Table.Td><RowLink resource="hosts" project={undefined} id={verdict.host.id}>{verdict.host.name}</RowLink></Table.Td>
                  <Table.Td>{verdict.host.id === detail.data.host?.id ? t.verdict.here : verdict.takes ? t.verdict.takes : t.verdict.not}</Table.Td>
                  <Table.Td>{verdict.rejections.map((reason) => <Text key={String(reason)} size="sm">{t.state(String(reason))}</Text>)}</Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Paper>
      )}
    </Stack>
  )
}
