// Every resource that the console shows, in the order of its menus.
import { addressPools } from './address_pools'
import { auditRecords, cloudAuditRecords } from './audit_records'
import { floatingIps } from './floating_ips'
import { groups } from './groups'
import { hosts } from './hosts'
import { images } from './images'
import { instances } from './instances'
import { instanceTypes } from './instance_types'
import { keyPairs } from './key_pairs'
import { networks } from './networks'
import { operations } from './operations'
import { placementGroups } from './placement_groups'
import { cloudPolicies, policies } from './policies'
import { cloudPolicyAttachments, policyAttachments } from './policy_attachments'
import { pools } from './pools'
import { ports } from './ports'
import { projects } from './projects'
import type { Resource } from './resource'
import { routers } from './routers'
import { securityGroups } from './security_groups'
import { serviceAccounts } from './service_accounts'
import { snapshotSchedules } from './snapshot_schedules'
import { snapshots } from './snapshots'
import { subnets } from './subnets'
import { users } from './users'
import { volumes } from './volumes'

export const registry: Resource[] = [
  instances, images, keyPairs, placementGroups, volumes, snapshots, snapshotSchedules, networks, subnets, ports, routers, floatingIps, securityGroups,
  operations, auditRecords, policies, policyAttachments, serviceAccounts,
  hosts, instanceTypes, addressPools, pools, projects, users, groups, cloudPolicies, cloudPolicyAttachments, cloudAuditRecords,
]

/** The resource of a place in the address. */
export function find(scope: 'project' | 'cloud', name: string): Resource | undefined {
  return registry.find((resource) => resource.scope === scope && resource.name === name)
}

/** By the kind in an event. */
export const byKind: ReadonlyMap<string, Resource> = new Map(registry.map((resource) => [resource.kind, resource]))
