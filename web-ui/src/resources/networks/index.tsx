import type { Schemas } from '../../api/client'
import { flag, labels, nameOf, text, time } from '../columns'
import type { Resource } from '../resource'
import { Inside } from './Inside'

type Network = Schemas['Network']

export const networks: Resource<Network> = {
  name: 'networks',
  kind: 'network',
  scope: 'project',
  path: '/v1/projects/{project}/networks',
  sort: 'name',
  columns: [nameOf('networks'), text('description', (row) => row.description), flag('is_default', (row) => row.is_default), text('mtu', (row) => row.mtu), labels(), time('created_at', (row) => row.created_at)],
  create: { schema: 'CreateNetwork', fields: ['name', 'description', 'mtu', 'labels'] },
  update: { schema: 'UpdateNetwork', fields: ['name', 'description', 'labels'] },
  tabs: [{ name: 'inside', render: (row, project) => <Inside network={row} project={project} /> }],
  deletable: true,
}
