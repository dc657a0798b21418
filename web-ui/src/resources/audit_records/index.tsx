import type { Schemas } from '../../api/client'
import { RowLink } from '../../parts/RowLink'
import { state, text, time } from '../columns'
import type { Resource } from '../resource'

type AuditRecord = Schemas['AuditRecord']

const columns: Resource<AuditRecord>['columns'] = [
  { ...time('at', (row) => row.at), wide: false },
  text('principal_name', (row) => row.principal_name, false),
  { key: 'action', value: (row) => row.action, render: (row, project) => <RowLink resource="audit_records" project={project} id={row.id}>{row.action}</RowLink> },
  text('resource', (row) => row.resource), state((row) => row.outcome, 'outcome'), text('source_address', (row) => row.source_address),
]

export const auditRecords: Resource<AuditRecord> = {
  name: 'audit_records', kind: 'audit_record', scope: 'project', path: '/v1/projects/{project}/audit_records', columns,
}

export const cloudAuditRecords: Resource<AuditRecord> = { ...auditRecords, scope: 'cloud', path: '/v1/audit_records' }
