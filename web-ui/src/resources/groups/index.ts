import type { Schemas } from '../../api/client'
import { nameOf, text, time } from '../columns'
import type { Resource } from '../resource'

type Group = Schemas['Group']

export const groups: Resource<Group> = {
  name: 'groups',
  kind: 'group',
  scope: 'cloud',
  path: '/v1/groups',
  sort: 'name',
  columns: [
    nameOf('groups'), text('description', (row) => row.description, false), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreateGroup', fields: ['name', 'description'] },
  update: { schema: 'UpdateGroup', fields: ['name', 'description'] },
  deletable: true,
}
