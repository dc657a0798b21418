import type { Schemas } from '../../api/client'
import { flag, nameOf, text, time } from '../columns'
import type { Resource } from '../resource'

type User = Schemas['User']

export const users: Resource<User> = {
  name: 'users',
  kind: 'user',
  scope: 'cloud',
  path: '/v1/users',
  sort: 'name',
  columns: [
    nameOf('users'), text('description', (row) => row.description), flag('disabled', (row) => row.disabled), flag('has_second_factor', (row) => row.has_second_factor), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreateUser', fields: ['name', 'description', 'password'] },
  update: { schema: 'UpdateUser', fields: ['name', 'description', 'disabled'] },
  deletable: true,
}
