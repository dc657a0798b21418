import type { Schemas } from '../../api/client'
import { later } from '../../parts/Later'
import { RowLink } from '../../parts/RowLink'
import { nameOf, state, text, time } from '../columns'
import type { PartLoad } from '../instances/load/PartLoad'
import type { Resource } from '../resource'

type Port = Schemas['Port']

const Load = later<Parameters<typeof PartLoad>[0]>(() => import('../instances/load/PartLoad').then(({ PartLoad }) => PartLoad))

export const ports: Resource<Port> = {
  name: 'ports',
  kind: 'port',
  scope: 'project',
  path: '/v1/projects/{project}/ports',
  sort: 'name',
  columns: [
    nameOf('ports'), state((row) => row.status, 'status'), text('addresses', (row) => row.addresses.map(({ address }) => address).join(', '), false),
    { key: 'instance', value: (row) => row.instance?.name ?? '', wide: true, render: (row, project) => <RowLink resource="instances" project={project} id={row.instance?.id}>{row.instance?.name}</RowLink> },
    text('network', (row) => row.network.name), text('security_groups', (row) => row.security_groups.map(({ name }) => name).join(', ')), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreatePort', fields: ['name', 'network', 'security_groups', 'addresses', 'mac', 'allowed_address_pairs', 'labels'], references: { network: 'networks' } },
  update: { schema: 'UpdatePort', fields: ['name', 'security_groups', 'allowed_address_pairs', 'labels'] },
  tabs: [{ name: 'load', render: (row, project) => <Load key={row.id} instance={row.instance ?? undefined} project={project} part={{ port: row.id }} name={row.name ?? row.id} /> }],
  deletable: true,
}
