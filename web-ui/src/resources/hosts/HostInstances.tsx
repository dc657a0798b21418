import { Text } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useState } from 'react'
import type { Schemas } from '../../api/client'
import { allRows } from '../../api/rows'
import { DataTable } from '../../parts/DataTable'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { RowLink } from '../../parts/RowLink'
import { sorted } from '../../parts/rows'
import { t } from '../../strings'
import { size, state, text } from '../columns'
import type { Column } from '../resource'

type Instance = Schemas['CloudInstance']

/** They come and go without any change of the host. */
const LOOK_MS = 10_000

const columns: Column<Instance>[] = [
  { key: 'name', value: (row) => row.name, render: (row) => <RowLink resource="instances" project={row.project.name} id={row.id}>{row.name}</RowLink> },
  text('project', (row) => row.project.name, false), state((row) => row.state), text('instance_type', (row) => row.instance_type.name),
  size('vcpus', (row) => row.vcpus), size('memory_mib', (row) => row.memory_mib),
]

/** The instances of all projects that are on a host. */
export function HostInstances({ host }: { host: Schemas['Host'] }) {
  const query = useQuery({
    queryKey: ['cloud', 'instances', host.id],
    queryFn: ({ signal }) => allRows<Instance>('/v1/instances', signal, { host: host.id }),
    refetchInterval: LOOK_MS,
  })
  const [sort, setSort] = useState<string | undefined>('name')
  const rows = query.data ?? []
  return (
    <>
      <ProblemAlert error={query.error} retry={() => void query.refetch()} />
      {query.data && rows.length === 0 && <Text size="sm" c="dimmed">{t.host.noInstances}</Text>}
      {rows.length > 0 && <DataTable label={t.resource('instances').title} columns={columns} rows={sorted(rows, columns, sort)} project={undefined} sort={sort} onSort={setSort} />}
    </>
  )
}
