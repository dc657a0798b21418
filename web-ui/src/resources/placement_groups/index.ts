import type { Schemas } from '../../api/client'
import { labels, nameOf, text, time } from '../columns'
import type { Resource } from '../resource'

type PlacementGroup = Schemas['PlacementGroup']

export const placementGroups: Resource<PlacementGroup> = {
  name: 'placement_groups',
  kind: 'placement_group',
  scope: 'project',
  path: '/v1/projects/{project}/placement_groups',
  sort: 'name',
  columns: [
    nameOf('placement_groups'), text('policy', (row) => row.policy, false), text('strength', (row) => row.strength), text('scope', (row) => row.scope),
    text('instances', (row) => row.instances.map(({ name }) => name).join(', ')), labels(), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreatePlacementGroup', fields: ['name', 'policy', 'strength', 'scope', 'description', 'labels'], initial: { policy: 'spread' } },
  update: { schema: 'UpdatePlacementGroup', fields: ['name', 'description', 'labels'] },
  deletable: true,
}
