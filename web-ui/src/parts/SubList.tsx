import { Button, Group, Modal, Paper, Stack, Table, Text, Title } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState, type ReactNode } from 'react'
import { allRows } from '../api/rows'
import { call } from '../api/client'
import type { FormSpec } from '../resources/resource'
import { t } from '../strings'
import { ProblemAlert } from './ProblemAlert'
import { Remove } from './Remove'
import { ResourceForm } from './ResourceForm'
import { secretOf, type Secret } from './secret'
import { ShownOnce } from './ShownOnce'

interface Props<T> {
  title: string
  empty: string
  path: string
  queryKey: readonly unknown[]
  project: string | undefined
  columns: { key: string; render: (row: T) => ReactNode }[]
  id: (row: T) => string
  name: (row: T) => string
  /** Of what the path lists, those that are meant. */
  only?: (row: T) => boolean
  add?: FormSpec
  addLabel?: string
  /** In the place of the button that adds. */
  adder?: (done: () => void) => ReactNode
  removeLabel: string
}

/** What belongs to one thing, with what adds to it and takes from it. */
export function SubList<T>(props: Props<T>) {
  const { title, path, queryKey, columns, add, addLabel, removeLabel } = props
  const client = useQueryClient()
  const query = useQuery({ queryKey, queryFn: ({ signal }) => allRows<T>(path, signal) })
  const [adding, setAdding] = useState(false)
  const [removing, setRemoving] = useState<T | undefined>()
  const [secret, setSecret] = useState<Secret | undefined>()
  const rows = (query.data ?? []).filter(props.only ?? (() => true))
  const fresh = () => void client.invalidateQueries({ queryKey })
  const done = (answer: unknown) => {
    setAdding(false)
    setSecret(secretOf(answer))
    fresh()
  }
  return (
    <Stack gap="sm">
      <Group justify="space-between" align="flex-end">
        <Title order={2} size="h5">{title}</Title>
        {props.adder?.(fresh)}
        {add && <Button size="compact-sm" variant="default" onClick={() => setAdding(true)}>{addLabel}</Button>}
      </Group>
      <ProblemAlert error={query.error} retry={() => void query.refetch()} />
      {query.data && rows.length === 0 && <Text size="sm" c="dimmed">{props.empty}</Text>}
      {rows.length > 0 && (
        <Paper withBorder style={{ overflowX: 'auto' }} tabIndex={0} role="region" aria-label={title}>
          <Table>
            <Table.Thead><Table.Tr>{columns.map(({ key }) => <Table.Th key={key}>{t.field(key)}</Table.Th>)}<Table.Td /></Table.Tr></Table.Thead>
            <Table.Tbody>
              {rows.map((row) => (
                <Table.Tr key={props.id(row)}>
                  {columns.map(({ key, render }) => <Table.Td key={key}>{render(row)}</Table.Td>)}
                  <Table.Td ta="right"><Button size="compact-sm" variant="subtle" color="red" aria-label={`${removeLabel}: ${props.name(row)}`} onClick={() => setRemoving(row)}>{removeLabel}</Button></Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Paper>
      )}
      <Modal opened={adding} onClose={() => setAdding(false)} title={addLabel} size="lg">
        {add && <ResourceForm spec={add} method="POST" path={path} project={props.project} button={addLabel ?? ''} onDone={done} onCancel={() => setAdding(false)} />}
      </Modal>
      <Remove
        names={removing ? [props.name(removing)] : []} one={title} many={title} opened={removing !== undefined} close={() => setRemoving(undefined)} plain button={removeLabel}
        remove={async () => { if (removing) await call('DELETE', `${path}/${encodeURIComponent(props.id(removing))}`); fresh() }}
      />
      <ShownOnce secret={secret} close={() => setSecret(undefined)} />
    </Stack>
  )
}
