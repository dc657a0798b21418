import { Stack, Title } from '@mantine/core'
import { useState } from 'react'
import type { Schemas } from '../../api/client'
import { useRows } from '../../api/rows'
import { DataTable } from '../../parts/DataTable'
import { sorted } from '../../parts/rows'
import { t } from '../../strings'
import { ports } from '../ports'
import type { Resource, Row } from '../resource'
import { subnets } from '../subnets'

/** What is in a network: its ranges of addresses, and who has which. */
export function Inside({ network, project }: { network: Schemas['Network']; project: string }) {
  return (
    <Stack>
      <Part resource={subnets} project={project} network={network.id} />
      <Part resource={ports} project={project} network={network.id} />
    </Stack>
  )
}

function Part({ resource, project, network }: { resource: Resource; project: string; network: string }) {
  const query = useRows<Row & { network: { id: string } }>(resource, project)
  const [sort, setSort] = useState(resource.sort)
  const rows = (query.data ?? []).filter((row) => row.network.id === network)
  const title = t.resource(resource.name).title
  return (
    <Stack gap="xs">
      <Title order={2} size="h5">{title}</Title>
      <DataTable label={title} columns={resource.columns} rows={sorted(rows, resource.columns, sort)} project={project} sort={sort} onSort={setSort} />
    </Stack>
  )
}
