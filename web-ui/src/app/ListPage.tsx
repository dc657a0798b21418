import { Alert, Button, Center, Group, Loader, Modal, Paper, Stack, Text, TextInput, Title } from '@mantine/core'
import { notifications } from '@mantine/notifications'
import IconPlus from '@tabler/icons-react/dist/esm/icons/IconPlus.mjs'
import IconSearch from '@tabler/icons-react/dist/esm/icons/IconSearch.mjs'
import { useQueryClient } from '@tanstack/react-query'
import { Link, useNavigate, useSearch } from '@tanstack/react-router'
import { useDeferredValue, useMemo, useState } from 'react'
import { call } from '../api/client'
import { many } from '../api/many'
import { asProblem } from '../api/problem'
import { listPath, rowsKey, useRows } from '../api/rows'
import { DataTable } from '../parts/DataTable'
import { ProblemAlert } from '../parts/ProblemAlert'
import { Remove } from '../parts/Remove'
import { ResourceForm } from '../parts/ResourceForm'
import { secretOf, type Secret } from '../parts/secret'
import { ShownOnce } from '../parts/ShownOnce'
import { filtered, sorted } from '../parts/rows'
import type { Action, Resource, Row } from '../resources/resource'
import { t } from '../strings'

export function ListPage({ resource, project }: { resource: Resource; project: string | undefined }) {
  const text = t.resource(resource.name)
  const navigate = useNavigate()
  const search = useSearch({ strict: false })
  const query = useRows<Row>(resource, project)
  const [selected, setSelected] = useState<Set<string>>(new Set())
  const filter = search.filter ?? ''
  const sort = search.sort ?? resource.sort
  const asked = useDeferredValue(filter)
  const rows = useMemo(() => sorted(filtered(query.data ?? [], resource.columns, asked), resource.columns, sort), [query.data, resource, asked, sort])
  const set = (next: { filter?: string; sort?: string }) => void navigate({ to: '.', search: (before: object) => ({ ...before, ...next }), replace: true })
  const selectable = Boolean(resource.deletable || resource.actions?.some(plain))
  const chosen = rows.filter((row) => selected.has(row.id))
  const empty = query.data?.length === 0

  return (
    <Stack>
      <Group justify="space-between">
        <Title order={1} size="h2">{text.title}</Title>
        <Create resource={resource} project={project} />
      </Group>
      <ProblemAlert error={query.error} retry={() => void query.refetch()} />
      {query.isLoading && <Center p="xl"><Loader aria-label={t.table.loading} /></Center>}
      {empty && (
        <Paper withBorder p="xl" ta="center">
          <Stack align="center" gap="sm">
            <Text fw={600}>{t.table.none(text.title)}</Text>
            <Text c="dimmed" maw={520}>{text.teach}</Text>
          </Stack>
        </Paper>
      )}
      {query.data && !empty && (
        <>
          <Group justify="space-between" mih={36}>
            <TextInput
              type="search" aria-label={t.table.filter(text.title)} placeholder={t.table.filter(text.title)} value={filter} w={320} maw="100%"
              leftSection={<IconSearch size={16} />} onChange={(event) => set({ filter: event.currentTarget.value || undefined })}
            />
            {chosen.length > 0 ? (
              <Many resource={resource} project={project} rows={chosen} clear={() => setSelected(new Set())} />
            ) : (
              <Text size="sm" c="dimmed" role="status">{t.table.rows(rows.length, query.data.length)}</Text>
            )}
          </Group>
          {rows.length === 0 ? (
            <Alert color="gray" variant="light">{t.table.nothing} <Button variant="subtle" size="compact-sm" onClick={() => set({ filter: undefined })}>{t.table.clear}</Button></Alert>
          ) : (
            <DataTable
              label={text.title} columns={resource.columns} rows={rows} project={project} sort={sort} onSort={(next) => set({ sort: next })}
              {...(selectable ? { selected, onSelect: setSelected } : {})}
            />
          )}
        </>
      )}
    </Stack>
  )
}

/** Needs nothing but the row. */
const plain = (action: Action<Row>) => !action.form && !action.dialog && !action.confirm && !action.shown

function Create({ resource, project }: { resource: Resource; project: string | undefined }) {
  const [opened, setOpened] = useState(false)
  const client = useQueryClient()
  const [secret, setSecret] = useState<Secret | undefined>()
  if (!resource.create) return null
  const label = (resource.create !== 'page' && resource.create.label) || t.form.create(t.resource(resource.name).one)
  if (resource.create === 'page') {
    return <Button leftSection={<IconPlus size={16} />} renderRoot={(props) => <Link {...props} to="/projects/$project/create_instance" params={{ project: project ?? '' }} />}>{label}</Button>
  }
  const done = (answer: unknown) => {
    setOpened(false)
    void client.invalidateQueries({ queryKey: rowsKey(resource, project) })
    const made = answer as Record<string, unknown>
    notifications.show({ message: made['name'] ? t.done(label, String(made['name'])) : label, color: 'teal' })
    setSecret(secretOf(answer))
  }
  return (
    <>
      <Button leftSection={<IconPlus size={16} />} onClick={() => setOpened(true)}>{label}</Button>
      <Modal opened={opened} onClose={() => setOpened(false)} title={label} size="lg">
        <ResourceForm spec={resource.create} method="POST" path={resource.create.path ?? listPath(resource, project)} project={project} button={label} onDone={done} onCancel={() => setOpened(false)} />
      </Modal>
      <ShownOnce secret={secret} close={() => setSecret(undefined)} />
    </>
  )
}

function Many({ resource, project, rows, clear }: { resource: Resource; project: string | undefined; rows: Row[]; clear: () => void }) {
  const [removing, setRemoving] = useState(false)
  const text = t.resource(resource.name)
  const client = useQueryClient()
  const each = async (title: string, action: string, change: (row: Row) => Promise<unknown>) => {
    const refusals = await many(resource, project, rows, action, change)
    void client.invalidateQueries({ queryKey: rowsKey(resource, project) })
    const first = refusals[0]
    if (first) {
      const problem = asProblem(first)
      notifications.show({ color: 'red', title: t.partly(refusals.length, rows.length), message: problem.detail ?? problem.title, autoClose: 10_000 })
    } else notifications.show({ message: t.done(title, rows.length === 1 ? (rows[0]?.name ?? '') : t.table.rows(rows.length, rows.length)), color: 'teal' })
    clear()
  }
  const path = (row: Row) => `${listPath(resource, project)}/${row.id}`
  const possible = (action: Action<Row>) => rows.some((row) => !action.hindrance?.(row))
  return (
    <Group gap="xs">
      <Text size="sm" role="status">{t.table.selected(rows.length)}</Text>
      {resource.actions?.filter(plain).map((action) => (
        <Button key={action.name} size="compact-sm" variant="default" disabled={!possible(action)} onClick={() => void each(t.action(action.name), action.name, (row) => call('POST', `${path(row)}/${action.name}`, { body: action.body ?? {} }))}>
          {t.action(action.name)}
        </Button>
      ))}
      {resource.deletable && <Button size="compact-sm" color="red" variant="light" onClick={() => setRemoving(true)}>{t.remove.button}</Button>}
      <Remove names={rows.map((row) => resource.label?.(row) ?? row.name ?? row.id)} one={text.one} many={text.title} opened={removing} close={() => setRemoving(false)} plain={resource.label !== undefined} remove={() => each(t.remove.button, 'delete', (row) => call('DELETE', path(row)))} />
    </Group>
  )
}
