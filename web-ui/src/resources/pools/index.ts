import type { Schemas } from '../../api/client'
import { nameOf, text, time } from '../columns'
import type { Resource } from '../resource'

type Pool = Schemas['Pool']

export const pools: Resource<Pool> = {
  name: 'pools',
  kind: 'pool',
  scope: 'cloud',
  path: '/v1/pools',
  sort: 'name',
  columns: [
    nameOf('pools'), text('description', (row) => row.description, false), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreatePool', fields: ['name', 'description', 'overcommit_percent', 'low_percent'] },
  update: { schema: 'UpdatePool', fields: ['description', 'overcommit_percent', 'low_percent'] },
  deletable: true,
}
