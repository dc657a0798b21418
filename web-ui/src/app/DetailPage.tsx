import { ActionIcon, Button, Center, Code, Group, Loader, Menu, Modal, Stack, Tabs, Title, Tooltip } from '@mantine/core'
import { notifications } from '@mantine/notifications'
import IconDots from '@tabler/icons-react/dist/esm/icons/IconDots.mjs'
import { useQueryClient } from '@tanstack/react-query'
import { useNavigate, useSearch } from '@tanstack/react-router'
import { useState } from 'react'
import { call, fill } from '../api/client'
import { asProblem } from '../api/problem'
import { listPath, rowsKey, useRow } from '../api/rows'
import { Confirm } from '../parts/Confirm'
import { Copyable } from '../parts/Copy'
import { later } from '../parts/Later'
import { ProblemAlert } from '../parts/ProblemAlert'
import { Remove } from '../parts/Remove'
import { ResourceForm } from '../parts/ResourceForm'
import { secretOf, type Secret } from '../parts/secret'
import { ShownOnce } from '../parts/ShownOnce'
import { StateBadge } from '../parts/StateBadge'
import { Crumbs } from './Crumbs'
import { Overview } from './Overview'
import type { Action, FormSpec, Resource, Row } from '../resources/resource'
import { formOf } from '../parts/fields'
import { t } from '../strings'

const WhoCan = later<{ project: string | undefined; of: string }>(() => import('../resources/policies/WhoCan').then(({ WhoCan }) => WhoCan))

export function DetailPage({ resource, project, id }: { resource: Resource; project: string | undefined; id: string }) {
  const query = useRow<Row & { state?: string; status?: string }>(resource, project, id)
  const navigate = useNavigate()
  const search = useSearch({ strict: false })
  const row = query.data
  const tab = search.tab ?? 'overview'
  // A project's own page is the cloud's, and its actions are the project's; a policy's asks about anything.
  const questioned = resource.deletable && !['project', 'policy'].includes(resource.kind) && row?.name ? `${resource.kind}/${row.name}` : undefined
  return (
    <Stack>
      <Crumbs resource={resource} project={project} name={row?.name ?? id} />
      <ProblemAlert error={query.error} retry={() => void query.refetch()} />
      {query.isLoading && <Center p="xl"><Loader aria-label={t.table.loading} /></Center>}
      {row && (
        <>
          <Group justify="space-between" align="flex-start">
            <Stack gap={4}>
              <Group gap="sm">
                <Title order={1} size="h2" style={{ overflowWrap: 'anywhere' }}>{row.name ?? row.id}</Title>
                {(row.state ?? row.status) && <StateBadge state={row.state ?? row.status ?? ''} />}
              </Group>
              <Copyable text={row.id} what={t.field('id')} />
            </Stack>
            <Actions resource={resource} project={project} row={row} />
          </Group>
          {resource.summary?.(row, project)}
          <Tabs value={tab} onChange={(next) => void navigate({ to: '.', search: (before: object) => ({ ...before, tab: next === 'overview' ? undefined : (next ?? undefined) }), replace: true })} keepMounted={false}>
            <Tabs.List mb="md">
              <Tabs.Tab value="overview">{t.tab('overview')}</Tabs.Tab>
              {resource.tabs?.filter((one) => one.name !== 'overview').map(({ name }) => <Tabs.Tab key={name} value={name}>{t.tab(name)}</Tabs.Tab>)}
              {questioned && <Tabs.Tab value="who_can">{t.tab('who_can')}</Tabs.Tab>}
              <Tabs.Tab value="json">{t.tab('json')}</Tabs.Tab>
            </Tabs.List>
            <Tabs.Panel value="overview">{resource.tabs?.find((one) => one.name === 'overview')?.render(row, project ?? '') ?? <Overview row={row} />}</Tabs.Panel>
            {resource.tabs?.filter((one) => one.name !== 'overview').map(({ name, render }) => <Tabs.Panel key={name} value={name}>{render(row, project ?? '')}</Tabs.Panel>)}
            {questioned && <Tabs.Panel value="who_can"><WhoCan project={project} of={questioned} /></Tabs.Panel>}
            <Tabs.Panel value="json"><Code block mah="60vh" style={{ overflow: 'auto' }} tabIndex={0}>{JSON.stringify(row, null, 2)}</Code></Tabs.Panel>
          </Tabs>
        </>
      )}
    </Stack>
  )
}

function Actions({ resource, project, row }: { resource: Resource; project: string | undefined; row: Row }) {
  const client = useQueryClient()
  const navigate = useNavigate()
  const [open, setOpen] = useState<Action<Row> | undefined>()
  const [asking, setAsking] = useState<Action<Row> | undefined>()
  const [secret, setSecret] = useState<Secret | undefined>()
  const [changing, setChanging] = useState(false)
  const [removing, setRemoving] = useState(false)
  const path = `${listPath(resource, project)}/${row.id}`
  const text = t.resource(resource.name)
  const fresh = () => void client.invalidateQueries({ queryKey: rowsKey(resource, project) })
  const done = (title: string) => {
    setOpen(undefined)
    setAsking(undefined)
    setChanging(false)
    fresh()
    notifications.show({ message: t.done(title, row.name ?? ''), color: 'teal' })
  }
  const post = async (action: Action<Row>) => setSecret(secretOf(await call('POST', `${path}/${action.verb ?? action.name}`, { body: action.body ?? {} })))
  const run = async (action: Action<Row>) => {
    if (action.form || action.dialog) return setOpen(action)
    if (action.confirm) return setAsking(action)
    try {
      await post(action)
      done(t.action(action.name))
    } catch (error) {
      const problem = asProblem(error)
      notifications.show({ color: 'red', title: problem.title, message: problem.detail ?? '', autoClose: 12_000 })
    }
  }
  const remove = async () => {
    await call('DELETE', path)
    fresh()
    notifications.show({ message: t.remove.done(row.name ?? row.id), color: 'teal' })
    void navigate({ to: project === undefined ? '/cloud/$resource' : '/projects/$project/$resource', params: { project: project ?? '', resource: resource.name } })
  }
  const offered = (resource.actions ?? []).filter((action) => action.shown?.(row) ?? true)
  const direct = offered.filter((action) => !action.menu)
  const inMenu = offered.filter((action) => action.menu)
  const form = typeof open?.form === 'function' ? open.form(row) : open?.form
  return (
    <Group gap="xs">
      {direct.map((action) => {
        const hindrance = action.hindrance?.(row)
        return (
          <Tooltip key={action.name} label={hindrance} disabled={!hindrance}>
            <Button variant="default" data-disabled={hindrance ? true : undefined} aria-disabled={Boolean(hindrance)} onClick={() => !hindrance && void run(action)}>{t.action(action.name)}</Button>
          </Tooltip>
        )
      })}
      {resource.update && <Button variant="default" onClick={() => setChanging(true)}>{t.form.change}</Button>}
      {resource.deletable && <Button color="red" variant="light" onClick={() => setRemoving(true)}>{t.remove.button}</Button>}
      {inMenu.length > 0 && (
        <Menu position="bottom-end">
          <Menu.Target><ActionIcon variant="default" size={36} aria-label={t.menu}><IconDots size={18} /></ActionIcon></Menu.Target>
          <Menu.Dropdown>{inMenu.map((action) => <Menu.Item key={action.name} disabled={Boolean(action.hindrance?.(row))} onClick={() => void run(action)}>{t.action(action.name)}</Menu.Item>)}</Menu.Dropdown>
        </Menu>
      )}
      <Modal opened={open !== undefined} onClose={() => setOpen(undefined)} title={open && `${t.action(open.name)}: ${row.name ?? ''}`} size="lg">
        {open && form && <ResourceForm spec={form} method="POST" path={open.path ? fill(open.path, { project: project ?? '' }) : `${path}/${open.verb ?? open.name}`} project={project} button={t.action(open.name)} onDone={() => done(t.action(open.name))} onCancel={() => setOpen(undefined)} />}
        {open?.dialog?.(row, project ?? '', () => done(t.action(open.name)), () => setOpen(undefined))}
      </Modal>
      <Modal opened={changing} onClose={() => setChanging(false)} title={`${t.form.change}: ${row.name ?? ''}`} size="lg">
        {resource.update && <ResourceForm spec={withValues(resource.update, row)} method="PATCH" path={path} project={project} button={t.form.save} onDone={() => done(t.form.change)} onCancel={() => setChanging(false)} />}
      </Modal>
      <Modal opened={asking !== undefined} onClose={() => setAsking(undefined)} title={asking && `${t.action(asking.name)}: ${row.name ?? ''}`} centered>
        {asking && <Confirm text={asking.confirm?.(row) ?? ''} button={t.action(asking.name)} run={() => post(asking)} done={() => done(t.action(asking.name))} close={() => setAsking(undefined)} />}
      </Modal>
      <ShownOnce secret={secret} close={() => setSecret(undefined)} />
      <Remove names={[row.name ?? row.id]} one={text.one} many={text.title} opened={removing} close={() => setRemoving(false)} remove={remove} />
    </Group>
  )
}

/** A form that begins with what there is. */
function withValues(spec: FormSpec, row: Row): FormSpec {
  const form = formOf(spec.schema)
  const initial = Object.fromEntries(spec.fields.map((name) => {
    const value = (row as unknown as Record<string, unknown>)[name]
    const field = form.properties[name]
    if (spec.references?.[name] && typeof value === 'object') return [name, (value as Row | null)?.name]
    if (field?.type === 'labels') return [name, Object.entries(value ?? {}).map(([key, label]) => `${key}=${label}`)]
    if (field?.type === 'object' || field?.items === 'object') return [name, value === undefined ? '' : JSON.stringify(value, null, 2)]
    return [name, value]
  }))
  return { ...spec, initial }
}

