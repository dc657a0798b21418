// What can be done to an instance, and when.
import { Text } from '@mantine/core'
import { t } from '../../strings'
import type { Action, FormSpec } from '../resource'
import type { Instance } from '.'
import { GiveAddress } from './GiveAddress'
import { LeaseForm } from './LeaseForm'

const only = (...states: string[]) => (row: Instance) => (states.includes(row.state) ? undefined : t.state(row.state))
const not = (...states: string[]) => (row: Instance) => (states.includes(row.state) ? t.state(row.state) : undefined)
const hinted = (spec: FormSpec, hint: string): FormSpec => ({ ...spec, hint: <Text size="sm" c="dimmed">{hint}</Text> })

const references = { image: 'images', instance_type: 'instance_types', volume: 'volumes', network: 'networks', port: 'ports' }

export const actions: Action<Instance>[] = [
  { name: 'start', hindrance: not('running') },
  { name: 'stop', hindrance: not('stopped') },
  { name: 'reboot', hindrance: only('running') },
  { name: 'confirm_resize', shown: (row) => Boolean(row.resize), confirm: (row) => t.verbs.confirmResize(row.name) },
  { name: 'revert_resize', shown: (row) => Boolean(row.resize), confirm: (row) => t.verbs.revertResize(row.name) },
  { name: 'unrescue', shown: (row) => row.state_reason === 'rescued', confirm: (row) => t.verbs.unrescue(row.name) },
  { name: 'force_stop', verb: 'stop', body: { force: true }, menu: true, hindrance: not('stopped'), confirm: (row) => t.verbs.stopHard(row.name) },
  { name: 'pause', menu: true, hindrance: only('running') },
  { name: 'resume', menu: true, hindrance: only('paused') },
  { name: 'give_address', menu: true, dialog: (row, project, done, close) => <GiveAddress instance={row} project={project} done={done} close={close} /> },
  { name: 'resize', menu: true, hindrance: (row) => (row.resize ? t.state('resized') : undefined), form: hinted({ schema: 'ResizeInstance', fields: ['instance_type', 'vcpus', 'memory_mib', 'reboot', 'confirm_after_seconds', 'force', 'timeout_seconds'], references }, t.verbs.resize) },
  { name: 'rebuild', menu: true, form: hinted({ schema: 'RebuildInstance', fields: ['image', 'force', 'timeout_seconds'], references }, t.verbs.rebuild) },
  { name: 'rescue', menu: true, shown: (row) => row.state_reason !== 'rescued', form: hinted({ schema: 'RescueInstance', fields: ['image', 'force', 'timeout_seconds'], references }, t.verbs.rescue) },
  { name: 'clone', menu: true, path: '/v1/projects/{project}/instances', form: (row) => hinted({ schema: 'CreateInstance', fields: ['name', 'instance_type', 'labels'], references, fixed: { source: { instance: row.id } } }, t.verbs.clone) },
  { name: 'snapshot', menu: true, path: '/v1/projects/{project}/snapshots', form: (row) => ({ schema: 'CreateSnapshot', fields: ['name', 'consistency', 'memory', 'description', 'labels'], fixed: { instance: row.id } }) },
  { name: 'lease', menu: true, dialog: (row, project, done, close) => <LeaseForm instance={row} project={project} done={done} close={close} /> },
  { name: 'attach_volume', menu: true, form: { schema: 'AttachVolume', fields: ['volume', 'delete_with_instance', 'root'], references } },
  { name: 'detach_volume', menu: true, form: { schema: 'DetachVolume', fields: ['volume'], references } },
  { name: 'attach_port', menu: true, form: { schema: 'WantedCard', fields: ['network', 'port', 'address', 'security_groups'], references } },
  { name: 'detach_port', menu: true, form: { schema: 'DetachPort', fields: ['port'], references } },
]
