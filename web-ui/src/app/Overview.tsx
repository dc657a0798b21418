import { Paper, Table } from '@mantine/core'
import { Values } from '../parts/Values'
import { t } from '../strings'

/** Every field as it is. */
export function Overview({ row }: { row: object }) {
  const hidden = new Set(['id', 'name', 'state', 'status'])
  return (
    <Paper withBorder p={0} style={{ overflow: 'hidden' }}>
      <Table>
        <Table.Tbody>
          {Object.entries(row).filter(([key]) => !hidden.has(key)).map(([key, value]) => (
            <Table.Tr key={key}>
              <Table.Th scope="row" w="30%" c="dimmed" fw={400} style={{ verticalAlign: 'top' }}>{t.field(key)}</Table.Th>
              <Table.Td style={{ overflowWrap: 'anywhere' }}><Values name={key} value={value} /></Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Paper>
  )
}
