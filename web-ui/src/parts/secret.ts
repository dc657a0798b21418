/** Something that the API shows once, and that is lost if nobody keeps it. */
export interface Secret {
  /** The field of the answer that it is. */
  field: string
  text: string
  /** What a file with it is called. */
  file: string | undefined
}

const FIELDS = ['private_key', 'key', 'token', 'password_code'] as const

/** The secret in the answer to a call that made something, if there is one. */
export function secretOf(answer: unknown): Secret | undefined {
  if (typeof answer !== 'object' || answer === null) return undefined
  const made = answer as Record<string, unknown>
  for (const field of FIELDS) {
    const text = made[field]
    if (typeof text === 'string') return { field, text, file: field === 'private_key' ? `${String(made['name'] ?? 'key')}.pem` : undefined }
  }
  return undefined
}
