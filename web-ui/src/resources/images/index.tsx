import type { Schemas } from '../../api/client'
import { later } from '../../parts/Later'
import { labels, nameOf, size, state, text, time } from '../columns'
import type { Resource } from '../resource'

type Image = Schemas['Image']

const Upload = later<{ image: Image; project: string }>(() => import('./Upload').then(({ Upload }) => Upload))

export const images: Resource<Image> = {
  name: 'images',
  kind: 'image',
  scope: 'project',
  path: '/v1/projects/{project}/images',
  sort: 'name',
  columns: [
    nameOf('images'), state((row) => row.state), text('format', (row) => row.format), text('architecture', (row) => row.architecture),
    size('size_bytes', (row) => row.size_bytes), size('virtual_size_bytes', (row) => row.virtual_size_bytes), text('visibility', (row) => row.visibility), labels(), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreateImage', fields: ['name', 'format', 'description', 'sha256', 'default_user', 'architecture', 'firmware', 'min_disk_gib', 'min_memory_mib', 'labels'], initial: { format: 'qcow2' } },
  update: { schema: 'UpdateImage', fields: ['name', 'description', 'default_user', 'min_disk_gib', 'min_memory_mib', 'labels'] },
  actions: [
    { name: 'import', form: { schema: 'ImportImage', fields: ['url', 'sha256'] } },
  ],
  deletable: true,
  summary: (row, project) => (row.state === 'awaiting_upload' ? <Upload key={row.id} image={row} project={project ?? ''} /> : null),
}
