import { fill, type Schemas } from '../../api/client'
import { ApiKeys } from '../../parts/ApiKeys'
import { t } from '../../strings'
import { flag, nameOf, text, time } from '../columns'
import { Attached } from '../policy_attachments/Attached'
import type { Resource } from '../resource'

type User = Schemas['User']

export const users: Resource<User> = {
  name: 'users',
  kind: 'user',
  scope: 'cloud',
  path: '/v1/users',
  sort: 'name',
  columns: [
    nameOf('users'), text('description', (row) => row.description), flag('disabled', (row) => row.disabled), flag('has_second_factor', (row) => row.has_second_factor), flag('password_change_required', (row) => row.password_change_required), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreateUser', fields: ['name', 'description', 'password'] },
  update: { schema: 'UpdateUser', fields: ['name', 'description', 'disabled', 'password_change_required'] },
  actions: [{ name: 'reset_password', confirm: (row) => t.resetPassword(row.name) }],
  tabs: [
    { name: 'attached', render: (row) => <Attached project={undefined} of={{ user: row.id }} /> },
    { name: 'keys', render: (row) => <ApiKeys path={fill('/v1/users/{user}/api_keys', { user: row.id })} project={undefined} /> },
  ],
  deletable: true,
}
