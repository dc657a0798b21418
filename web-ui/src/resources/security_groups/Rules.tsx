import { Badge, Button, Paper, Stack, Table } from '@mantine/core'
import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { call, fill, type Schemas } from '../../api/client'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { t } from '../../strings'
import { isOpen, portsOf } from './rule'

type Rule = Schemas['SecurityGroupRule']

export function Rules({ group, project }: { group: Schemas['SecurityGroup']; project: string }) {
  const client = useQueryClient()
  const [error, setError] = useState<unknown>()
  const remove = async (rule: Rule) => {
    setError(undefined)
    try {
      await call('DELETE', fill('/v1/projects/{project}/security_groups/{group}/rules/{rule}', { project, group: group.id, rule: rule.id }))
      await client.invalidateQueries({ queryKey: ['projects', project, 'security_groups'] })
    } catch (problem) {
      setError(problem)
    }
  }
  return (
    <Stack>
      <ProblemAlert error={error} />
      <Paper withBorder style={{ overflowX: 'auto' }}>
        <Table>
          <Table.Thead>
            <Table.Tr>{['direction', 'protocol', 'ports', 'remote', 'description'].map((name) => <Table.Th key={name}>{t.field(name)}</Table.Th>)}<Table.Th /></Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {group.rules.map((rule) => (
              <Table.Tr key={rule.id}>
                <Table.Td>{rule.direction}</Table.Td>
                <Table.Td>{String(rule.protocol)}</Table.Td>
                <Table.Td>{portsOf(rule)}</Table.Td>
                <Table.Td>{rule.remote_cidr ?? (rule.remote_group_id === group.id ? group.name : rule.remote_group_id)} {isOpen(rule) && <Badge color="orange" variant="light" tt="none">everybody</Badge>}</Table.Td>
                <Table.Td>{rule.description}</Table.Td>
                <Table.Td ta="right"><Button size="compact-sm" variant="subtle" color="red" onClick={() => void remove(rule)}>{t.remove.button}</Button></Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Paper>
    </Stack>
  )
}
