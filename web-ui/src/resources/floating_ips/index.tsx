import type { Schemas } from '../../api/client'
import { RowLink } from '../../parts/RowLink'
import { nameOf, text, time } from '../columns'
import type { Resource } from '../resource'

type FloatingIp = Schemas['FloatingIp']

export const floatingIps: Resource<FloatingIp> = {
  name: 'floating_ips',
  kind: 'floating_ip',
  scope: 'project',
  path: '/v1/projects/{project}/floating_ips',
  sort: 'name',
  columns: [
    nameOf('floating_ips'), text('address', (row) => row.address, false),
    { key: 'fixed_address', value: (row) => row.fixed_address ?? '', render: (row, project) => (row.instance_id ? <RowLink resource="instances" project={project} id={row.instance_id}>{row.fixed_address}</RowLink> : (row.fixed_address ?? '—')) },
    time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreateFloatingIp', fields: ['name', 'address_pool', 'address', 'labels'], references: { address_pool: 'address_pools' } },
  update: { schema: 'UpdateFloatingIp', fields: ['name', 'labels'] },
  actions: [
    { name: 'associate', form: { schema: 'AssociateFloatingIp', fields: ['instance', 'port', 'fixed_address'], references: { instance: 'instances', port: 'ports' } } },
    { name: 'disassociate', body: {} },
  ],
  deletable: true,
}
