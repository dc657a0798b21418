import type { Schemas } from '../../api/client'
import { nameOf, text, time } from '../columns'
import { Attached } from '../policy_attachments/Attached'
import type { Resource } from '../resource'
import { Members } from './Members'

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
  tabs: [
    { name: 'members', render: (row) => <Members group={row} /> },
    { name: 'attached', render: (row) => <Attached project={undefined} of={{ group: row.id }} /> },
  ],
  deletable: true,
}
