import type { Schemas } from '../../api/client'
import { nameOf, state, text, time } from '../columns'
import { Attached } from '../policy_attachments/Attached'
import { later } from '../../parts/Later'
import type { Resource } from '../resource'

type Policy = Schemas['Policy']

const Simulator = later<{ policy: Policy; project: string | undefined }>(() => import('./Simulator').then(({ Simulator }) => Simulator))
const WhoCan = later<{ project: string | undefined }>(() => import('./WhoCan').then(({ WhoCan }) => WhoCan))

const document = JSON.stringify({ Version: '2012-10-17', Statement: [{ Sid: 'ReadInstances', Effect: 'Allow', Action: ['compute:ListInstances', 'compute:GetInstance'], Resource: ['*'] }] }, null, 2)

export const policies: Resource<Policy> = {
  name: 'policies',
  kind: 'policy',
  scope: 'project',
  path: '/v1/projects/{project}/policies',
  sort: 'name',
  columns: [nameOf('policies'), text('description', (row) => row.description), state((row) => row.scope, 'scope'), text('default_version', (row) => row.default_version), time('updated_at', (row) => row.updated_at)],
  create: { schema: 'CreatePolicy', fields: ['name', 'description', 'document'], initial: { document } },
  update: { schema: 'UpdatePolicy', fields: ['name', 'description', 'document'] },
  tabs: [
    { name: 'attached', render: (row, project) => <Attached project={project} of={{ policy: row.id }} /> },
    { name: 'simulate', render: (row, project) => <Simulator policy={row} project={project} /> },
    { name: 'who_can', render: (_, project) => <WhoCan project={project} /> },
  ],
  deletable: true,
}

export const cloudPolicies: Resource<Policy> = {
  ...policies,
  scope: 'cloud',
  path: '/v1/policies',
  tabs: [
    { name: 'attached', render: (row) => <Attached project={undefined} of={{ policy: row.id }} /> },
    { name: 'simulate', render: (row) => <Simulator policy={row} project={undefined} /> },
    { name: 'who_can', render: () => <WhoCan project={undefined} /> },
  ],
}
