/** Of who may do what: keys, members, attachments. */
const secrets: Record<string, { title: string; hint: string }> = {
  private_key: { title: 'Private key', hint: 'Keep this private key: it is stored nowhere and is not shown again.' },
  key: { title: 'API key', hint: 'Keep this key: only its hash is stored, and it is not shown again. Send it as “Authorization: Bearer …”.' },
  token: { title: 'Join token', hint: 'It works once, and is not shown again. Put it into a file on the new machine; there, run: cumulo-agent join --control-plane https://THIS-CLOUD:8443 --token-file FILE (docs/operations.md has the rest).' },
  password_code: { title: 'One-time code', hint: 'Hand this code to the user, who sets a password with it under “I have a one-time code”. It is not shown again.' },
}

export const access = {
  secrets: {
    title: (field: string) => secrets[field]?.title ?? field,
    hint: (field: string) => secrets[field]?.hint ?? '',
    download: (file: string) => `Download ${file}`,
    kept: 'I have kept it',
  },
  attachments: {
    title: 'Policies attached', of: 'Attached to', none: 'Nothing is attached.', add: 'Attach a policy', attach: 'Attach', remove: 'Detach', everyone: 'everyone',
    label: (policy: string, subject: string) => `${policy} → ${subject}`,
  },
  whoCan: {
    hint: 'Everybody who may do it, by what is attached to them, to their groups or to everyone, here or in the whole cloud.', all: 'all of the kind', who: 'Who', may: 'May', by: 'By',
    nobody: (action: string) => `No policy allows ${action} to anybody here.`,
  },
  members: { title: 'Members', none: 'Nobody is in this group.', add: 'Add', who: 'User', remove: 'Take out' },
  keys: { title: 'API keys', none: 'No keys.', add: 'Make a key', remove: 'Revoke', never: 'never', all: 'all that its owner may' },
}
