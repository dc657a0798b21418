import type { Schemas } from '../../api/client'
import { flag, nameOf, text, time } from '../columns'
import type { Resource } from '../resource'

type Router = Schemas['Router']

const subnet = { schema: 'RouterSubnet', fields: ['subnet'], references: { subnet: 'subnets' } }

export const routers: Resource<Router> = {
  name: 'routers',
  kind: 'router',
  scope: 'project',
  path: '/v1/projects/{project}/routers',
  sort: 'name',
  columns: [nameOf('routers'), flag('external', (row) => row.external), text('interfaces', (row) => row.interfaces.map(({ address }) => address).join(', '), false), time('created_at', (row) => row.created_at)],
  create: { schema: 'CreateRouter', fields: ['name', 'external', 'labels'] },
  update: { schema: 'UpdateRouter', fields: ['name', 'external', 'routes', 'labels'] },
  actions: [{ name: 'add_interface', form: subnet }, { name: 'remove_interface', form: subnet }],
  deletable: true,
}
