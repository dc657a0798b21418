import type { Schemas } from '../../api/client'
import { nameOf, size, text, time } from '../columns'
import type { Resource } from '../resource'

type InstanceType = Schemas['InstanceType']

export const instanceTypes: Resource<InstanceType> = {
  name: 'instance_types',
  kind: 'instance_type',
  scope: 'cloud',
  path: '/v1/instance_types',
  sort: 'name',
  columns: [
    nameOf('instance_types'), text('vcpus', (row) => row.vcpus, false), size('memory_mib', (row) => row.memory_mib), size('root_disk_gib', (row) => row.root_disk_gib), text('architecture', (row) => row.architecture), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'CreateInstanceType', fields: ['name', 'vcpus', 'memory_mib', 'root_disk_gib', 'architecture'] },
  deletable: true,
}
