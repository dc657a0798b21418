import type { Schemas } from '../../api/client'
import { t } from '../../strings'
import { text, time } from '../columns'
import type { Resource } from '../resource'

type Attachment = Schemas['PolicyAttachment']

export const subjectOf = ({ subject }: Attachment) => subject.name ?? t.attachments.everyone

export const policyAttachments: Resource<Attachment> = {
  name: 'policy_attachments',
  kind: 'policy_attachment',
  scope: 'project',
  path: '/v1/projects/{project}/policy_attachments',
  sort: 'policy',
  columns: [
    text('policy', (row) => row.policy.name, false), text('subject', subjectOf, false), text('kind', (row) => row.subject.kind), text('scope', (row) => row.policy.scope),
    text('created_by', (row) => row.created_by?.name), time('created_at', (row) => row.created_at),
  ],
  create: { schema: 'AttachPolicy', fields: ['policy', 'user', 'group', 'service_account', 'everyone'], references: { policy: 'policies', user: 'users', group: 'groups', service_account: 'service_accounts' }, label: t.attachments.add },
  label: (row) => t.attachments.label(row.policy.name, subjectOf(row)),
  deletable: true,
}

export const cloudPolicyAttachments: Resource<Attachment> = {
  ...policyAttachments,
  scope: 'cloud',
  path: '/v1/policy_attachments',
  create: { schema: 'AttachPolicy', fields: ['policy', 'user', 'group', 'everyone'], references: { policy: 'policies', user: 'users', group: 'groups' }, label: t.attachments.add },
}
