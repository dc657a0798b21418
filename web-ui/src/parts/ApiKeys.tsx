import { Code } from '@mantine/core'
import type { Schemas } from '../api/client'
import { t } from '../strings'
import { SubList } from './SubList'
import { Time } from './Time'

type ApiKey = Schemas['ApiKey']

/** The API keys of a user or a service account. Each is shown when it is made, and never again. */
export function ApiKeys({ path, project }: { path: string; project: string | undefined }) {
  return (
    <SubList<ApiKey>
      title={t.keys.title} empty={t.keys.none} path={path} queryKey={['api keys', path]} project={project}
      columns={[
        { key: 'hint', render: (row) => <Code>{row.hint}</Code> }, { key: 'description', render: (row) => row.description },
        { key: 'last_used_at', render: (row) => <Time at={row.last_used_at} /> }, { key: 'expires_at', render: (row) => (row.expires_at ? <Time at={row.expires_at} /> : t.keys.never) },
        { key: 'created_at', render: (row) => <Time at={row.created_at} /> },
      ]}
      id={(row) => row.id} name={(row) => row.description || row.hint}
      add={{ schema: 'CreateApiKey', fields: ['description', 'expires_in_seconds', 'policy'] }} addLabel={t.keys.add} removeLabel={t.keys.remove}
    />
  )
}
