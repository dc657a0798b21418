// Where one can go: the menus and the palette are made from this.
import type { ComponentType } from 'react'
import IconActivity from '@tabler/icons-react/dist/esm/icons/IconActivity.mjs'
import IconAffiliate from '@tabler/icons-react/dist/esm/icons/IconAffiliate.mjs'
import IconArrowsSplit2 from '@tabler/icons-react/dist/esm/icons/IconArrowsSplit2.mjs'
import IconBolt from '@tabler/icons-react/dist/esm/icons/IconBolt.mjs'
import IconCamera from '@tabler/icons-react/dist/esm/icons/IconCamera.mjs'
import IconChartBar from '@tabler/icons-react/dist/esm/icons/IconChartBar.mjs'
import IconClock from '@tabler/icons-react/dist/esm/icons/IconClock.mjs'
import IconDatabase from '@tabler/icons-react/dist/esm/icons/IconDatabase.mjs'
import IconDeviceDesktop from '@tabler/icons-react/dist/esm/icons/IconDeviceDesktop.mjs'
import IconDisc from '@tabler/icons-react/dist/esm/icons/IconDisc.mjs'
import IconFileCertificate from '@tabler/icons-react/dist/esm/icons/IconFileCertificate.mjs'
import IconFolder from '@tabler/icons-react/dist/esm/icons/IconFolder.mjs'
import IconHistory from '@tabler/icons-react/dist/esm/icons/IconHistory.mjs'
import IconKey from '@tabler/icons-react/dist/esm/icons/IconKey.mjs'
import IconLink from '@tabler/icons-react/dist/esm/icons/IconLink.mjs'
import IconMap2 from '@tabler/icons-react/dist/esm/icons/IconMap2.mjs'
import IconNetwork from '@tabler/icons-react/dist/esm/icons/IconNetwork.mjs'
import IconPlug from '@tabler/icons-react/dist/esm/icons/IconPlug.mjs'
import IconRobot from '@tabler/icons-react/dist/esm/icons/IconRobot.mjs'
import IconRouter from '@tabler/icons-react/dist/esm/icons/IconRouter.mjs'
import IconRuler2 from '@tabler/icons-react/dist/esm/icons/IconRuler2.mjs'
import IconServer from '@tabler/icons-react/dist/esm/icons/IconServer.mjs'
import IconShield from '@tabler/icons-react/dist/esm/icons/IconShield.mjs'
import IconSitemap from '@tabler/icons-react/dist/esm/icons/IconSitemap.mjs'
import IconUser from '@tabler/icons-react/dist/esm/icons/IconUser.mjs'
import IconUsers from '@tabler/icons-react/dist/esm/icons/IconUsers.mjs'
import IconWorld from '@tabler/icons-react/dist/esm/icons/IconWorld.mjs'
import { t } from '../strings'

export interface Place {
  name: string
  icon: ComponentType<{ size?: number; stroke?: number }>
}

interface Section {
  title: string
  places: Place[]
}

export const projectSections: Section[] = [
  { title: t.sections.compute, places: [{ name: 'instances', icon: IconDeviceDesktop }, { name: 'images', icon: IconDisc }, { name: 'key_pairs', icon: IconKey }, { name: 'placement_groups', icon: IconAffiliate }] },
  { title: t.sections.storage, places: [{ name: 'volumes', icon: IconDatabase }, { name: 'snapshots', icon: IconCamera }, { name: 'snapshot_schedules', icon: IconClock }] },
  { title: t.sections.network, places: [{ name: 'topology', icon: IconSitemap }, { name: 'networks', icon: IconNetwork }, { name: 'subnets', icon: IconArrowsSplit2 }, { name: 'ports', icon: IconPlug }, { name: 'routers', icon: IconRouter }, { name: 'floating_ips', icon: IconWorld }, { name: 'security_groups', icon: IconShield }] },
  { title: t.sections.project, places: [{ name: 'quotas', icon: IconChartBar }, { name: 'operations', icon: IconBolt }, { name: 'events', icon: IconActivity }, { name: 'audit_records', icon: IconHistory }, { name: 'policies', icon: IconFileCertificate }, { name: 'policy_attachments', icon: IconLink }, { name: 'service_accounts', icon: IconRobot }] },
]

export const cloudSections: Section[] = [
  { title: t.sections.cloud, places: [{ name: 'projects', icon: IconFolder }, { name: 'hosts', icon: IconServer }, { name: 'capacity', icon: IconMap2 }, { name: 'instance_types', icon: IconRuler2 }, { name: 'address_pools', icon: IconWorld }, { name: 'pools', icon: IconDatabase }, { name: 'events', icon: IconActivity }] },
  { title: t.sections.access, places: [{ name: 'users', icon: IconUser }, { name: 'groups', icon: IconUsers }, { name: 'policies', icon: IconFileCertificate }, { name: 'policy_attachments', icon: IconLink }, { name: 'audit_records', icon: IconHistory }] },
]
