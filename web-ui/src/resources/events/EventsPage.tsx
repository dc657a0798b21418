import { Stack, Title, TextInput } from '@mantine/core'
import { useMemo, useState } from 'react'
import { DataTable } from '../../parts/DataTable'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { RowLink } from '../../parts/RowLink'
import { filtered, sorted } from '../../parts/rows'
import { t } from '../../strings'
import { text, time } from '../columns'
import { byKind } from '../registry'
import type { Column } from '../resource'
import { useEvents, type Event } from '.'

type EventRow = Event & { id: string }

const columns: Column<EventRow>[] = [
  { ...time<EventRow>('at', (row) => row.at), wide: false },
  text<EventRow>('kind', (row) => row.kind, false),
  { key: 'resource_name', value: (row) => row.resource_name, render: (row, project) => { const resource = byKind.get(row.kind); return resource && row.change !== 'deleted' ? <RowLink resource={resource.name} project={project} id={row.resource_id}>{row.resource_name}</RowLink> : row.resource_name } },
  text<EventRow>('change', (row) => t.state(row.change), false),
  text<EventRow>('position', (row) => row.position),
]

export function EventsPage({ project }: { project: string | undefined }) {
  const events = useEvents(project)
  const [filter, setFilter] = useState('')
  const [sort, setSort] = useState<string | undefined>()
  const rows = useMemo(() => (events.data ?? []).map((event) => ({ ...event, id: String(event.position) })), [events.data])
  const title = t.resource('events').title
  return (
    <Stack>
      <Title order={1} size="h2">{title}</Title>
      <ProblemAlert error={events.error} />
      <TextInput type="search" w={320} maw="100%" aria-label={t.table.filter(title)} placeholder={t.table.filter(title)} value={filter} onChange={(event) => setFilter(event.currentTarget.value)} />
      {events.data && <DataTable label={title} columns={columns} rows={sorted(filtered(rows, columns, filter), columns, sort)} project={project} sort={sort} onSort={setSort} />}
    </Stack>
  )
}
