import createClient from 'openapi-fetch'
import { problemOf } from './problem'
import type { components, paths } from './schema'
import { sessionFetch } from './session'

export type Schemas = components['schemas']
export type Path = keyof paths

/** The typed client: `api.GET('/v1/me')`. */
export const api = createClient<paths>({ fetch: sessionFetch })

/** The data of a call of the typed client. Throws its problem. */
export async function data<T>(call: Promise<{ data?: T; response: Response; error?: unknown }>): Promise<T> {
  const { data, response } = await call
  if (data === undefined) throw await problemOf(rebuilt(response, (await call).error))
  return data
}

/** The client has read the body already. */
function rebuilt(response: Response, error: unknown): Response {
  return new Response(JSON.stringify(error ?? null), { status: response.status, headers: response.headers })
}

export interface CallOptions {
  body?: unknown
  query?: Record<string, string | number | boolean | undefined>
  ifMatch?: string
  signal?: AbortSignal
  /** Goes through every check and changes nothing. */
  dryRun?: boolean
}

/** A call whose path is put together at run time, for the parts that all resources share. */
export async function call<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
  const response = await rawCall(method, path, options)
  if (response.status === 204) return undefined as T
  return (await response.json()) as T
}

export async function rawCall(method: string, path: string, options: CallOptions = {}): Promise<Response> {
  const query = new URLSearchParams()
  for (const [key, value] of Object.entries(options.query ?? {})) {
    if (value !== undefined) query.set(key, String(value))
  }
  if (options.dryRun) query.set('dry_run', 'true')
  const headers = new Headers()
  if (method !== 'GET') headers.set('content-type', 'application/json')
  if (method === 'POST' && !options.dryRun) headers.set('idempotency-key', crypto.randomUUID())
  if (options.ifMatch) headers.set('if-match', options.ifMatch)
  const url = query.size > 0 ? `${path}?${query}` : path
  const response = await sessionFetch(url, {
    method,
    headers,
    body: options.body === undefined ? undefined : JSON.stringify(options.body),
    signal: options.signal,
  })
  if (!response.ok) throw await problemOf(response)
  return response
}

/** Puts names into a path of the document: `fill('/v1/projects/{project}/volumes', { project })`. */
export function fill(path: string, values: Record<string, string>): string {
  return path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(values[name] ?? ''))
}
