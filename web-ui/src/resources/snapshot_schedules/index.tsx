import type { Schemas } from '../../api/client'
import { nameOf, text, time } from '../columns'
import type { Resource } from '../resource'

type SnapshotSchedule = Schemas['SnapshotSchedule']

export const snapshotSchedules: Resource<SnapshotSchedule> = {
  name: 'snapshot_schedules',
  kind: 'snapshot_schedule',
  scope: 'project',
  path: '/v1/projects/{project}/snapshot_schedules',
  sort: 'name',
  columns: [nameOf('snapshot_schedules'), text('keep', (row) => row.keep, false), time('created_at', (row) => row.created_at)],
  create: { schema: 'CreateSnapshotSchedule', fields: ['name', 'instance', 'volume', 'every_hours', 'keep', 'at', 'weekday', 'consistency', 'description', 'labels'], references: { instance: 'instances', volume: 'volumes' } },
  update: { schema: 'UpdateSnapshotSchedule', fields: ['name', 'keep', 'paused', 'description', 'labels'] },
  deletable: true,
}
