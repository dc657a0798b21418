import { call, fill, type Schemas } from '../../api/client'
import { Trail } from '../../parts/Trail'
import { t } from '../../strings'
import { size, state, text, time } from '../columns'
import { RowLink } from '../../parts/RowLink'
import type { Resource } from '../resource'

type Operation = Schemas['Operation']

export function operationQuery(project: string, id: string) {
  return {
    queryKey: ['projects', project, 'operations', id],
    queryFn: ({ signal }: { signal: AbortSignal }) => call<Operation>('GET', fill('/v1/projects/{project}/operations/{id}', { project, id }), { signal }),
  }
}

export const operations: Resource<Operation> = {
  name: 'operations',
  kind: 'operation',
  scope: 'project',
  path: '/v1/projects/{project}/operations',
  sort: '-created_at',
  columns: [
    { key: 'kind', value: (row) => row.kind, render: (row, project) => <RowLink resource="operations" project={project} id={row.id}>{t.field(row.kind)}</RowLink> },
    text('resource_name', (row) => row.resource_name, false), state((row) => row.status, 'status'),
    size('progress_percent', (row) => row.progress_percent), { ...time('created_at', (row) => row.created_at), wide: false },
  ],
  actions: [{ name: 'cancel', body: {}, hindrance: (row) => (row.status === 'running' ? undefined : t.state(row.status)) }],
  tabs: [{ name: 'overview', render: (row) => <Trail operation={row} /> }],
}
