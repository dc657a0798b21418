import type { Schemas } from '../../api/client'
import { flag, nameOf, text, time } from '../columns'
import type { Resource } from '../resource'
import { Rules } from './Rules'

type SecurityGroup = Schemas['SecurityGroup']

export const securityGroups: Resource<SecurityGroup> = {
  name: 'security_groups',
  kind: 'security_group',
  scope: 'project',
  path: '/v1/projects/{project}/security_groups',
  sort: 'name',
  columns: [nameOf('security_groups'), text('description', (row) => row.description), text('rules', (row) => row.rules.length, false), flag('is_default', (row) => row.is_default), time('created_at', (row) => row.created_at)],
  create: { schema: 'CreateSecurityGroup', fields: ['name', 'description', 'labels'] },
  update: { schema: 'UpdateSecurityGroup', fields: ['name', 'description', 'labels'] },
  actions: [
    { name: 'rules', form: { schema: 'CreateSecurityGroupRule', fields: ['direction', 'protocol', 'port_first', 'port_last', 'remote_cidr', 'remote_group', 'icmp_type', 'icmp_code', 'description'], references: { remote_group: 'security_groups' }, initial: { direction: 'ingress', protocol: 'tcp' } } },
  ],
  tabs: [{ name: 'overview', render: (row, project) => <Rules group={row} project={project} /> }],
  deletable: true,
}
