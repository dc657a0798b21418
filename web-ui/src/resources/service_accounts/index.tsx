import { fill, type Schemas } from '../../api/client'
import { ApiKeys } from '../../parts/ApiKeys'
import { flag, nameOf, text, time } from '../columns'
import { Attached } from '../policy_attachments/Attached'
import type { Resource } from '../resource'

type ServiceAccount = Schemas['ServiceAccount']

export const serviceAccounts: Resource<ServiceAccount> = {
  name: 'service_accounts',
  kind: 'service_account',
  scope: 'project',
  path: '/v1/projects/{project}/service_accounts',
  sort: 'name',
  columns: [
    nameOf('service_accounts'), text('description', (row) => row.description), flag('disabled', (row) => row.disabled), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreateServiceAccount', fields: ['name', 'description'] },
  update: { schema: 'UpdateServiceAccount', fields: ['name', 'description', 'disabled'] },
  tabs: [
    { name: 'keys', render: (row, project) => <ApiKeys path={fill('/v1/projects/{project}/service_accounts/{id}/api_keys', { project, id: row.id })} project={project} /> },
    { name: 'attached', render: (row, project) => <Attached project={project} of={{ service_account: row.id }} /> },
  ],
  deletable: true,
}
