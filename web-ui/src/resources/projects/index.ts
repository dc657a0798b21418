import type { Schemas } from '../../api/client'
import { labels, nameOf, text, time } from '../columns'
import type { Resource } from '../resource'

type Project = Schemas['Project']

export const projects: Resource<Project> = {
  name: 'projects',
  kind: 'project',
  scope: 'cloud',
  path: '/v1/projects',
  sort: 'name',
  columns: [
    nameOf('projects'), text('description', (row) => row.description, false), labels(), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreateProject', fields: ['name', 'description', 'labels'] },
  update: { schema: 'UpdateProject', fields: ['name', 'description', 'labels'] },
  deletable: true,
}
