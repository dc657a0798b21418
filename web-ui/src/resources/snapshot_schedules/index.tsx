import type { Schemas } from '../../api/client'
import { t } from '../../strings'
import { flag, nameOf, text, time } from '../columns'
import type { Resource } from '../resource'

type SnapshotSchedule = Schemas['SnapshotSchedule']

const references = { instance: 'instances', volume: 'volumes' }

export const snapshotSchedules: Resource<SnapshotSchedule> = {
  name: 'snapshot_schedules',
  kind: 'snapshot_schedule',
  scope: 'project',
  path: '/v1/projects/{project}/snapshot_schedules',
  sort: 'name',
  columns: [nameOf('snapshot_schedules'), text('of', (row) => row.instance?.name ?? row.volume?.name, false), text('when', (row) => t.schedule(row.every_hours, row.weekday, row.at), false), text('keep', (row) => row.keep), flag('paused', (row) => row.paused), time('next_at', (row) => (row.paused ? null : row.next_at)), text('last_run', (row) => row.last_run?.failure ?? row.last_run?.snapshot?.name), time('created_at', (row) => row.created_at)],
  create: { schema: 'CreateSnapshotSchedule', fields: ['name', 'instance', 'volume', 'every_hours', 'keep', 'at', 'weekday', 'consistency', 'description', 'labels'], references },
  update: { schema: 'UpdateSnapshotSchedule', fields: ['name', 'keep', 'at', 'weekday', 'every_hours', 'instance', 'volume', 'paused', 'description', 'labels'], references },
  deletable: true,
}
