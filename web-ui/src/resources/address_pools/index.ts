import type { Schemas } from '../../api/client'
import { nameOf, text } from '../columns'
import type { Resource } from '../resource'

type AddressPool = Schemas['AddressPool']

export const addressPools: Resource<AddressPool> = {
  name: 'address_pools',
  kind: 'address_pool',
  scope: 'cloud',
  path: '/v1/address_pools',
  sort: 'name',
  columns: [
    nameOf('address_pools'), text('cidr', (row) => row.cidr, false), text('addresses', (row) => `${row.addresses.given} / ${row.addresses.total}`), text('description', (row) => row.description),
  ],
  create: { schema: 'CreateAddressPool', fields: ['name', 'cidr', 'description', 'first_address', 'last_address'] },
  update: { schema: 'UpdateAddressPool', fields: ['name', 'description', 'first_address', 'last_address'] },
  deletable: true,
}
