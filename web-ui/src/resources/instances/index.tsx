import type { Schemas } from '../../api/client'
import { later } from '../../parts/Later'
import { labels, nameOf, size, state, text, time } from '../columns'
import type { Resource } from '../resource'
import { actions } from './actions'
import { Consoles } from './console'
import { Overview } from './Overview'
import { Why } from './Why'

export type Instance = Schemas['Instance']

type Shown = { instance: Instance; project: string }
const Activity = later<Shown>(() => import('./Activity').then(({ Activity }) => Activity))
const Load = later<Shown>(() => import('./load').then(({ Load }) => Load))
const PlacementOf = later<Pick<Shown, 'instance'>>(() => import('./Placement').then(({ PlacementOf }) => PlacementOf))
const Serial = later<Shown>(() => import('./Serial').then(({ Serial }) => Serial))

const addresses = (row: Instance) => row.nics.flatMap((nic) => nic.addresses).join(', ')

export const instances: Resource<Instance> = {
  name: 'instances',
  kind: 'instance',
  scope: 'project',
  path: '/v1/projects/{project}/instances',
  sort: 'name',
  columns: [
    nameOf('instances'), state((row) => row.state), text('addresses', addresses), text('image', (row) => row.image.name),
    text('instance_type', (row) => row.instance_type.name), size('memory_mib', (row) => row.memory_mib), labels(),
    time('created_at', (row) => row.created_at),
  ],
  create: 'page',
  update: { schema: 'UpdateInstance', fields: ['name', 'description', 'labels', 'delete_protection', 'on_host_failure'] },
  deletable: true,
  actions,
  bulk: { path: '/v1/projects/{project}/instance_actions', actions: ['start', 'stop', 'reboot', 'pause', 'resume', 'delete'] },
  summary: (row) => <Why instance={row} />,
  tabs: [
    { name: 'overview', render: (row, project) => <Overview instance={row} project={project} /> },
    { name: 'activity', render: (row, project) => <Activity instance={row} project={project} /> },
    { name: 'load', render: (row, project) => <Load key={row.id} instance={row} project={project} /> },
    { name: 'placement', render: (row) => <PlacementOf instance={row} /> },
    { name: 'console', render: (row, project) => <Consoles key={row.id} instance={row} project={project} /> },
    { name: 'serial', render: (row, project) => <Serial instance={row} project={project} /> },
  ],
}
