// What forms know of the API's schemas; made from the OpenAPI document.
import forms from '../api/forms.json'
import { t } from '../strings'

export interface Field {
  type: string
  description?: string
  choices?: string[]
  minimum?: number
  maximum?: number
  pattern?: string
  maxLength?: number
  minLength?: number
  example?: unknown
  items?: 'string' | 'object'
  /** `null` takes it away. */
  nullable?: boolean
}

interface Form {
  required: string[]
  properties: Record<string, Field>
}

export type Values = Record<string, unknown>

export function formOf(schema: string): Form {
  const form = (forms as unknown as Record<string, Form>)[schema]
  if (!form) throw new Error(`the API has no schema ${schema}`)
  return form
}

export const isLong = (field: Field) => field.type === 'string' && (field.maxLength ?? 0) > 2000

export const isJson = (field: Field) => ['object', 'any'].includes(field.type) || (field.type === 'array' && field.items !== 'string')

/** What of the values is wrong before the API is asked: the rules of the document, and those alone. */
export function localErrors(schema: string, fields: string[], values: Values): Record<string, string> {
  const form = formOf(schema)
  const errors: Record<string, string> = {}
  for (const name of fields) {
    const field = form.properties[name]
    const value = values[name]
    if (!field) continue
    if (isBlank(value)) {
      if (form.required.includes(name)) errors[name] = t.form.required
    } else if (typeof value === 'string' && field.pattern && !isJson(field) && !new RegExp(field.pattern, 'u').test(value)) {
      errors[name] = t.form.pattern
    } else if (typeof value === 'number' && (value < (field.minimum ?? -Infinity) || value > (field.maximum ?? Infinity))) {
      errors[name] = t.form.range(field.minimum, field.maximum)
    } else if (isJson(field) && typeof value === 'string' && parseJson(value) === undefined) {
      errors[name] = t.form.json
    }
  }
  return errors
}

/** The body of the call: what was not filled in is left out. */
export function bodyOf(schema: string, fields: string[], values: Values): Values {
  const form = formOf(schema)
  const body: Values = {}
  for (const name of fields) {
    const field = form.properties[name]
    const value = values[name]
    if (!field || isBlank(value)) continue
    if (field.type === 'labels') body[name] = labels(value as string[])
    else if (isJson(field) && typeof value === 'string') body[name] = parseJson(value)
    else body[name] = value
  }
  return body
}

function isBlank(value: unknown): boolean {
  return value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function labels(pairs: string[]): Record<string, string> {
  return Object.fromEntries(pairs.map((pair) => {
    const at = pair.indexOf('=')
    return at < 0 ? [pair, ''] : [pair.slice(0, at), pair.slice(at + 1)]
  }))
}

/** Of a change, only what differs from before: what was emptied is empty, and a label that is gone is `null`. */
export function changed(schema: string, body: Values, before: Values, references?: Record<string, string>): Values {
  const form = formOf(schema)
  const change: Values = {}
  for (const name of new Set([...Object.keys(before), ...Object.keys(body)])) {
    const field = form.properties[name]
    const [now, then] = [body[name], before[name]]
    if (JSON.stringify(now) === JSON.stringify(then)) continue
    if (field?.type === 'labels') {
      const gone = Object.keys(then ?? {}).filter((key) => !(key in ((now as object | undefined) ?? {})))
      change[name] = { ...(now as object), ...Object.fromEntries(gone.map((key) => [key, null])) }
    } else if (now !== undefined) change[name] = now
    else if (field?.nullable) change[name] = null
    // What cannot be empty stays as it is: a time of day gives way to so many hours, a volume to an instance.
    else if (field?.type === 'string' && !references?.[name] && (!field.pattern || new RegExp(field.pattern, 'u').test(''))) change[name] = ''
    else if (field?.type === 'array') change[name] = []
  }
  return change
}
