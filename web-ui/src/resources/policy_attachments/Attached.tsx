import { fill, type Schemas } from '../../api/client'
import { rowsKey } from '../../api/rows'
import { SubList } from '../../parts/SubList'
import { Time } from '../../parts/Time'
import { t } from '../../strings'
import { cloudPolicyAttachments, policyAttachments, subjectOf } from '.'

type Attachment = Schemas['PolicyAttachment']

interface Props {
  project: string | undefined
  /** To whom these are attached, or which policy it is. */
  of: { user: string } | { group: string } | { service_account: string } | { policy: string }
}

/** The attachments of a policy, or those of somebody. */
export function Attached({ project, of }: Props) {
  const resource = project === undefined ? cloudPolicyAttachments : policyAttachments
  const id = Object.values(of)[0] ?? ''
  const whole = typeof resource.create === 'object' ? resource.create : undefined
  const fields = 'policy' in of ? (whole?.fields ?? []).filter((name) => name !== 'policy') : ['policy']
  return (
    <SubList<Attachment>
      title={'policy' in of ? t.attachments.of : t.attachments.title} empty={t.attachments.none} path={fill(resource.path, { project: project ?? '' })} queryKey={rowsKey(resource, project)} project={project}
      columns={[
        'policy' in of ? { key: 'subject', render: (row) => subjectOf(row) } : { key: 'policy', render: (row) => row.policy.name },
        { key: 'kind', render: (row) => t.state(row.subject.kind) }, { key: 'created_at', render: (row) => <Time at={row.created_at} /> },
      ]}
      id={(row) => row.id} name={(row) => t.attachments.label(row.policy.name, subjectOf(row))}
      only={(row) => ('policy' in of ? row.policy.id : row.subject.id) === id}
      {...(whole && { add: { ...whole, fields, fixed: of }, addLabel: 'policy' in of ? t.attachments.attach : t.attachments.add })} removeLabel={t.attachments.remove}
    />
  )
}
