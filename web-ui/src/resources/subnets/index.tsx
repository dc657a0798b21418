import type { Schemas } from '../../api/client'
import { flag, nameOf, text, time } from '../columns'
import type { Resource } from '../resource'

type Subnet = Schemas['Subnet']

export const subnets: Resource<Subnet> = {
  name: 'subnets',
  kind: 'subnet',
  scope: 'project',
  path: '/v1/projects/{project}/subnets',
  sort: 'name',
  columns: [
    nameOf('subnets'), text('cidr', (row) => row.cidr, false), text('network', (row) => row.network.name), text('gateway', (row) => row.gateway),
    flag('dhcp', (row) => row.dhcp), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreateSubnet', fields: ['name', 'network', 'cidr', 'gateway', 'dhcp', 'dns_servers', 'service_address', 'allocation_ranges', 'labels'], references: { network: 'networks' }, initial: { dhcp: true } },
  update: { schema: 'UpdateSubnet', fields: ['name', 'dns_servers', 'labels'] },
  deletable: true,
}
