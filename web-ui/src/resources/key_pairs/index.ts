import type { Schemas } from '../../api/client'
import { labels, nameOf, text, time } from '../columns'
import type { Resource } from '../resource'

type KeyPair = Schemas['KeyPair']

export const keyPairs: Resource<KeyPair> = {
  name: 'key_pairs',
  kind: 'key_pair',
  scope: 'project',
  path: '/v1/projects/{project}/key_pairs',
  sort: 'name',
  columns: [nameOf('key_pairs'), text('algorithm', (row) => row.algorithm, false), text('fingerprint', (row) => row.fingerprint), labels(), time('created_at', (row) => row.created_at)],
  create: { schema: 'CreateKeyPair', fields: ['name', 'public_key', 'labels'] },
  update: { schema: 'UpdateKeyPair', fields: ['name', 'labels'] },
  deletable: true,
}
