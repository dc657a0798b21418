import type { Schemas } from '../../api/client'
import { Waits } from '../../parts/Waits'
import { labels, nameOf, state, text, time } from '../columns'
import type { Resource } from '../resource'

type Snapshot = Schemas['Snapshot']

const references = { volume: 'volumes', instance: 'instances' }

export const snapshots: Resource<Snapshot> = {
  name: 'snapshots',
  kind: 'snapshot',
  scope: 'project',
  path: '/v1/projects/{project}/snapshots',
  sort: '-created_at',
  summary: (row) => <Waits detail={row.state_detail} />,
  columns: [
    nameOf('snapshots'), state((row) => row.state), text('instance', (row) => row.instance?.name),
    text('volumes', (row) => row.volumes.length), text('consistency', (row) => row.consistency), labels(), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreateSnapshot', fields: ['name', 'instance', 'volume', 'consistency', 'description', 'labels'], references },
  update: { schema: 'UpdateSnapshot', fields: ['name', 'description', 'labels'] },
  actions: [{ name: 'restore', form: { schema: 'RestoreSnapshot', fields: ['volume'], references } }],
  deletable: true,
}
