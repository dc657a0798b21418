import { Progress, Text } from '@mantine/core'
import type { Schemas } from '../../api/client'
import { amount } from '../../parts/format'
import { t } from '../../strings'
import { nameOf, state, text, time } from '../columns'
import type { Column, Resource } from '../resource'
import { HostInstances } from './HostInstances'
import { HostOverview } from './HostOverview'

type Host = Schemas['Host']

function capacity(key: 'vcpus' | 'memory_mib' | 'disk_gib'): Column<Host> {
  return {
    key, wide: true, value: (row) => (row[key].total === 0 ? 0 : row[key].reserved / row[key].total),
    render: (row) => {
      const { reserved, total } = row[key]
      const share = total === 0 ? 0 : (reserved / total) * 100
      const words = `${amount(key, reserved)} / ${amount(key, total)}`
      return <div style={{ minWidth: 120 }}><Text size="xs" c="dimmed">{words}</Text><Progress value={share} size="xs" color={share > 85 ? 'orange' : 'sky'} aria-label={words} /></div>
    },
  }
}

export const hosts: Resource<Host> = {
  name: 'hosts',
  kind: 'host',
  scope: 'cloud',
  path: '/v1/hosts',
  sort: 'name',
  columns: [nameOf('hosts'), state((row) => row.state), capacity('vcpus'), capacity('memory_mib'), capacity('disk_gib'), text('drift', (row) => row.drift?.toString()), text('hypervisor', (row) => row.inventory?.hypervisor), time('last_seen_at', (row) => row.last_seen_at)],
  create: { schema: 'CreateHostJoinToken', fields: ['ttl_seconds'], path: '/v1/host_join_tokens', label: t.host.addTitle },
  update: { schema: 'UpdateHost', fields: ['cordoned', 'rack', 'zone', 'labels', 'taints', 'vcpu_overcommit', 'memory_overcommit', 'disk_overcommit', 'pool_low_percent'] },
  deletable: true,
  actions: [
    { name: 'drain', menu: true, shown: (row) => row.maintenance.state !== 'drained', form: { schema: 'DrainHost', fields: ['stop_running', 'timeout_seconds'], hint: t.host.drainHint } },
    { name: 'end_maintenance', menu: true, shown: (row) => row.maintenance.state !== 'none', confirm: (row) => t.host.endMaintenance(row.name) },
    { name: 'declare_dead', menu: true, form: { schema: 'DeclareHostDead', fields: ['no_guest_runs'] } },
  ],
  tabs: [
    { name: 'overview', render: (row) => <HostOverview host={row} /> },
    { name: 'instances', render: (row) => <HostInstances key={row.id} host={row} /> },
  ],
}
