import { Group, SimpleGrid, Stack, Text } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import type { Schemas } from '../../api/client'
import { useRows } from '../../api/rows'
import { Copyable } from '../../parts/Copy'
import { Fact, Section } from '../../parts/Facts'
import { exactTime, gibibytes, mebibytes } from '../../parts/format'
import { later } from '../../parts/Later'
import { RowLink } from '../../parts/RowLink'
import { StateBadge } from '../../parts/StateBadge'
import { Time } from '../../parts/Time'
import { Trail } from '../../parts/Trail'
import { t } from '../../strings'
import { floatingIps } from '../floating_ips'
import { operationQuery } from '../operations'
import { ForceDetach } from './ForceDetach'
import type { Instance } from '.'

const Guest = later<{ instance: Instance; project: string }>(() => import('./Guest').then(({ Guest }) => Guest))

export function Overview({ instance, project }: { instance: Instance; project: string }) {
  const operation = useQuery(operationQuery(project, instance.operation.id))
  const floating = useRows<Schemas['FloatingIp']>(floatingIps, project)
  const publicOf = (portId: string) => floating.data?.filter((ip) => ip.port_id === portId) ?? []
  return (
    <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
      <Stack>
        <Section title={t.tab('overview')}>
          <Fact name={t.field('instance_type')}>{instance.instance_type.name}: {instance.vcpus} vCPU, {mebibytes(instance.memory_mib)}</Fact>
          <Fact name={t.field('image')}>{instance.image.gone ? `${instance.image.name} (${t.instance.gone})` : <RowLink resource="images" project={project} id={instance.image.id}>{instance.image.name}</RowLink>}</Fact>
          <Fact name={t.field('hostname')}>{instance.hostname}</Fact>
          <Fact name={t.field('architecture')}>{instance.architecture}, {instance.firmware}</Fact>
          {Object.keys(instance.labels).length > 0 && <Fact name={t.field('labels')}>{Object.entries(instance.labels).map(([key, value]) => `${key}=${value}`).join(', ')}</Fact>}
          {instance.key_pairs.length > 0 && <Fact name={t.resource('key_pairs').title}>{instance.key_pairs.join(', ')}</Fact>}
          {instance.placement_group && <Fact name={t.resource('placement_groups').title}><RowLink resource="placement_groups" project={project} id={instance.placement_group.id}>{instance.placement_group.name}</RowLink></Fact>}
          {instance.host && <Fact name={t.verdict.host}><RowLink resource="hosts" project={undefined} id={instance.host.id}>{instance.host.name}</RowLink></Fact>}
          <Fact name={t.field('on_host_failure')}>{t.instance.onHostFailure[instance.on_host_failure]}</Fact>
          {instance.delete_protection && <Fact name={t.field('delete_protection')}>{t.verbs.protected}</Fact>}
          {instance.lease && <Fact name={t.verbs.lease.title}>{t.verbs.lease.now(shortTime(instance.lease.stop_at), shortTime(instance.lease.delete_at))}{instance.lease.detail && <Text size="sm" c="dimmed">{instance.lease.detail}</Text>}</Fact>}
          <Fact name={t.field('created_at')}><Time at={instance.created_at} /></Fact>
        </Section>
        <Section title={t.instance.cards}>
          {instance.nics.length === 0 && <Text size="sm" c="dimmed">{t.instance.noNetwork}</Text>}
          {instance.nics.map((nic) => (
            <Stack key={nic.port.id} gap={6}>
              <Group gap="xs">
                <Text size="sm" fw={500}><RowLink resource="networks" project={project} id={nic.network.id}>{nic.network.name}</RowLink></Text>
                {nic.addresses.map((address) => <Copyable key={address} text={address} what={t.field('address')} />)}
              </Group>
              {publicOf(nic.port.id).map((ip) => (
                <Group key={ip.id} gap="xs"><Text size="sm" c="dimmed">{t.instance.floating}</Text><Copyable text={ip.address} what={t.instance.floating} /></Group>
              ))}
              <Text size="xs" c="dimmed">{nic.mac} · <RowLink resource="ports" project={project} id={nic.port.id}>{nic.port.name}</RowLink></Text>
            </Stack>
          ))}
        </Section>
        <Section title={t.instance.disks}>
          {instance.volumes.map((disk) => (
            <Group key={disk.volume.id} justify="space-between" gap="xs">
              <Text size="sm"><RowLink resource="volumes" project={project} id={disk.volume.id}>{disk.volume.name}</RowLink></Text>
              <Group gap="xs"><ForceDetach instance={instance} project={project} disk={disk} /><Text size="sm" c="dimmed">{gibibytes(disk.size_gib)}</Text><StateBadge state={disk.state} /></Group>
            </Group>
          ))}
        </Section>
      </Stack>
      <Stack>
        <Section title={t.instance.newest}>{operation.data && <Trail operation={operation.data} />}</Section>
        <Guest instance={instance} project={project} />
      </Stack>
    </SimpleGrid>
  )
}

const shortTime = (at: string | null | undefined) => (at ? exactTime(new Date(at)) : '')
