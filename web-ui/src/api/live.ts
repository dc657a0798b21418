import { useQueryClient, type Query, type QueryClient } from '@tanstack/react-query'
import { useEffect, useState } from 'react'
import { byKind } from '../resources/registry'
import type { Resource } from '../resources/resource'
import { call, type Schemas } from './client'
import { listPath, patchRows, rowsKey } from './rows'
import { sessionFetch } from './session'
import { SseParser } from './sse'

export type LiveState = 'connecting' | 'live' | 'lost'
type Event = Schemas['Event']

const RETRY_MS = [500, 1000, 2000, 5000, 10_000]
/** How long changes are gathered, so that a burst of events costs one look at each thing. */
const GATHER_MS = 150
/** The server says something every 15 seconds at the latest. What is silent for longer is lost, though nobody said so. */
const SILENCE_MS = 40_000
/** With more changes than this, the lists are read anew instead. */
const MANY = 25

/**
 * Follows the events of a project, or of the cloud, and keeps what is shown true. Only a page that is seen holds
 * a connection: browsers give an address six of them. Whatever was missed is caught up with.
 */
export function useLive(project: string | undefined): LiveState {
  const client = useQueryClient()
  const [state, setState] = useState<LiveState>('connecting')
  useEffect(() => {
    const stop = new AbortController()
    const changes = new Changes(client, project)
    void follow(project, changes, stop.signal, setState)
    return () => stop.abort()
  }, [client, project])
  return state
}

async function follow(
  project: string | undefined,
  changes: Changes,
  stop: AbortSignal,
  say: (state: LiveState) => void,
): Promise<void> {
  const base = project === undefined ? '/v1/events' : `/v1/projects/${encodeURIComponent(project)}/events`
  let position: string | undefined
  let failures = 0
  while (!stop.aborted) {
    await visible(stop)
    if (stop.aborted) return
    try {
      position ??= await head(base)
      const ended = new AbortController()
      const hidden = () => document.hidden && ended.abort()
      document.addEventListener('visibilitychange', hidden)
      let silence: ReturnType<typeof setTimeout> | undefined
      const heard = () => {
        clearTimeout(silence)
        silence = setTimeout(() => ended.abort(), SILENCE_MS)
      }
      try {
        heard()
        const signal = AbortSignal.any([stop, ended.signal])
        const response = await sessionFetch(`${base}/stream`, { headers: { 'last-event-id': position }, signal })
        if (response.status === 410 || response.status === 404) {
          position = undefined
          changes.everything()
        }
        if (!response.ok || !response.body) throw new Error(`stream: ${response.status}`)
        say('live')
        failures = 0
        const parser = new SseParser()
        for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
          heard()
          for (const message of parser.push(text)) {
            position = message.id
            changes.note(JSON.parse(message.data) as Event)
          }
        }
      } finally {
        clearTimeout(silence)
        document.removeEventListener('visibilitychange', hidden)
      }
    } catch {
      if (stop.aborted) return
      // Not seen is not lost.
      if (document.hidden) continue
      if (failures > 0) say('lost')
      await pause(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)] ?? 10_000, stop)
      failures += 1
    }
  }
}

/** The position of the newest event: what is shown was read at that time or later. */
async function head(base: string): Promise<string> {
  const page = await call<Schemas['EventPage']>('GET', base, { query: { limit: 1 } })
  return String(page.head)
}

/** What has changed, gathered for a moment. */
export class Changes {
  readonly #client: QueryClient
  readonly #project: string | undefined
  readonly #gathered = new Map<string, Event>()
  /** Of what is being looked at, the newest event: an answer that was asked for before it is old. */
  readonly #newest = new Map<string, number>()
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(client: QueryClient, project: string | undefined) {
    this.#client = client
    this.#project = project
  }

  everything(): void {
    void this.#client.invalidateQueries()
  }

  note(event: Event): void {
    this.#gathered.set(placeOf(event), event)
    this.#newest.set(placeOf(event), event.position)
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      const events = [...this.#gathered.values()]
      this.#gathered.clear()
      void this.#look(events)
    }, GATHER_MS)
  }

  async #look(events: Event[]): Promise<void> {
    const client = this.#client
    for (const name of ['events', 'quotas', 'audit_records', 'plan']) {
      void client.invalidateQueries({ predicate: ({ queryKey }) => queryKey.includes(name) })
    }
    if (events.length > MANY) {
      const names = new Set(events.map((event) => byKind.get(event.kind)?.name))
      void client.invalidateQueries({ predicate: ({ queryKey }) => queryKey.some((part) => names.has(String(part))) })
      for (const event of events) this.#done(event)
      return
    }
    await Promise.all(events.map((event) => this.#lookAt(event)))
  }

  async #lookAt(event: Event): Promise<void> {
    const resource = byKind.get(event.kind)
    if (!resource) return this.#done(event)
    const client = this.#client
    const key = rowsKey(resource, this.#project)
    // The details of it, by name or id, and of what lists it inside.
    void client.invalidateQueries({
      predicate: ({ queryKey }) =>
        queryKey.includes(resource.name) &&
        (queryKey.includes(event.resource_id) || queryKey.includes(event.resource_name)),
    })
    await this.#patch(resource, key, event)
    // A list that was on its way meanwhile may have been read before the event, and has just taken the row's place.
    const list = client.getQueryCache().find({ queryKey: key, exact: true })
    if (list?.state.fetchStatus === 'fetching') {
      await settled(client, list)
      await this.#patch(resource, key, event)
    }
    this.#done(event)
  }

  /** Puts what an event is about into its list, as it is now, unless there has been another event since. */
  async #patch(resource: Resource, key: readonly unknown[], event: Event): Promise<void> {
    const client = this.#client
    const isNewest = () => this.#newest.get(placeOf(event)) === event.position
    if (!client.getQueryData(key) || !isNewest()) return
    if (event.change === 'deleted') return patchRows(client, key, event.resource_id, undefined)
    try {
      const row = await call<{ id: string }>('GET', `${listPath(resource, this.#project)}/${event.resource_id}`)
      if (isNewest()) patchRows(client, key, event.resource_id, row)
    } catch {
      if (isNewest()) void client.invalidateQueries({ queryKey: key, exact: true })
    }
  }

  #done(event: Event): void {
    if (this.#newest.get(placeOf(event)) === event.position) this.#newest.delete(placeOf(event))
  }
}

const placeOf = (event: Event) => `${event.kind}/${event.resource_id}`

/** Resolves when nothing is on its way for a query. */
function settled(client: QueryClient, query: Query): Promise<void> {
  const cache = client.getQueryCache()
  return new Promise((resolve) => {
    const stop = cache.subscribe(() => {
      if (query.state.fetchStatus === 'fetching' && cache.get(query.queryHash) === query) return
      stop()
      resolve()
    })
  })
}

function visible(stop: AbortSignal): Promise<void> {
  if (!document.hidden) return Promise.resolve()
  return new Promise((resolve) => {
    const done = () => {
      if (document.hidden && !stop.aborted) return
      document.removeEventListener('visibilitychange', done)
      resolve()
    }
    document.addEventListener('visibilitychange', done)
    stop.addEventListener('abort', done)
  })
}

function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    stop.addEventListener('abort', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}
