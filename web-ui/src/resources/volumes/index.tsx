import type { Schemas } from '../../api/client'
import { later } from '../../parts/Later'
import { RowLink } from '../../parts/RowLink'
import { Waits } from '../../parts/Waits'
import { labels, nameOf, size, state, text, time } from '../columns'
import type { PartLoad } from '../instances/load/PartLoad'
import type { Resource } from '../resource'

type Volume = Schemas['Volume']

const Load = later<Parameters<typeof PartLoad>[0]>(() => import('../instances/load/PartLoad').then(({ PartLoad }) => PartLoad))

export const volumes: Resource<Volume> = {
  name: 'volumes',
  kind: 'volume',
  scope: 'project',
  path: '/v1/projects/{project}/volumes',
  sort: 'name',
  summary: (row) => <Waits detail={row.state_detail} />,
  columns: [
    nameOf('volumes'), state((row) => row.state), size('size_gib', (row) => row.size_gib),
    { key: 'instance', value: (row) => row.attachment?.instance.name ?? '', render: (row, project) => <RowLink resource="instances" project={project} id={row.attachment?.instance.id}>{row.attachment?.instance.name}</RowLink> },
    text('image', (row) => row.image?.name), text('pool', (row) => row.pool?.name), labels(), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreateVolume', fields: ['name', 'size_gib', 'description', 'source', 'pool', 'delete_protection', 'iops_limit', 'bytes_per_second_limit', 'labels'], references: { pool: 'pools' } },
  update: { schema: 'UpdateVolume', fields: ['name', 'size_gib', 'description', 'delete_protection', 'delete_with_instance', 'iops_limit', 'bytes_per_second_limit', 'labels'] },
  tabs: [{ name: 'load', render: (row, project) => <Load key={row.id} instance={row.attachment?.instance} project={project} part={{ volume: row.id }} name={row.name ?? row.id} /> }],
  deletable: true,
}
