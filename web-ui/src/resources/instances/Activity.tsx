import { Accordion, Group, Paper, SimpleGrid, Stack, Table, Text, Title } from '@mantine/core'
import type { Schemas } from '../../api/client'
import { useRows } from '../../api/rows'
import { StateBadge } from '../../parts/StateBadge'
import { Time } from '../../parts/Time'
import { Trail } from '../../parts/Trail'
import { t } from '../../strings'
import { useEvents } from '../events'
import { operations } from '../operations'
import type { Instance } from '.'

/** Every operation on an instance with its steps, and what else became of it. */
export function Activity({ instance, project }: { instance: Instance; project: string }) {
  const rows = useRows<Schemas['Operation']>(operations, project)
  const own = (rows.data ?? []).filter((operation) => operation.resource_id === instance.id)
  const events = useEvents(project)
  const seen = (events.data ?? []).filter((event) => event.resource_id === instance.id).slice(0, 100)
  return (
    <SimpleGrid cols={{ base: 1, md: 2 }}>
      <Stack gap="xs">
        <Title order={2} size="h5">{t.instance.operations}</Title>
        <Accordion variant="separated" defaultValue={own[0]?.id}>
          {own.map((operation) => (
            <Accordion.Item key={operation.id} value={operation.id}>
              <Accordion.Control>
                <Group gap="xs"><Text size="sm" fw={500}>{t.field(operation.kind)}</Text><StateBadge state={operation.status} live={operation.status === 'running'} /><Text size="sm" c="dimmed"><Time at={operation.created_at} /></Text></Group>
              </Accordion.Control>
              <Accordion.Panel><Trail operation={operation} /></Accordion.Panel>
            </Accordion.Item>
          ))}
        </Accordion>
      </Stack>
      <Stack gap="xs">
        <Title order={2} size="h5">{t.instance.events}</Title>
        <Paper withBorder>
          <Table>
            <Table.Tbody>{seen.map((event) => <Table.Tr key={event.position}><Table.Td>{t.state(event.change)}</Table.Td><Table.Td c="dimmed"><Time at={event.at} /></Table.Td></Table.Tr>)}</Table.Tbody>
          </Table>
        </Paper>
      </Stack>
    </SimpleGrid>
  )
}
