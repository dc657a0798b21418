// A part of the page as a browser without a screen would show it, with answers in the place of the API.
import { MantineProvider } from '@mantine/core'
import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { cleanup, render } from '@testing-library/react'
import type { ReactNode } from 'react'
import { afterEach, beforeEach, vi } from 'vitest'

export type Answer = unknown | ((request: Request) => unknown)

/** What was asked: the method and the path with its query. */
export const asked: { method: string; path: string; body: unknown }[] = []
let answers: Record<string, Answer> = {}

/** Answers `GET /v1/me` and the like; a `Response` as it is, anything else as JSON. The query counts only if it is named. */
export function answer(by: Record<string, Answer>): void {
  answers = { ...answers, ...by }
}

// What happy-dom lacks and Mantine listens to.
if (!('fonts' in document)) Object.defineProperty(document, 'fonts', { value: new EventTarget() })

beforeEach(() => {
  answers = {}
  asked.length = 0
  vi.stubGlobal('fetch', async (given: Request | string, init?: RequestInit) => {
    const input = typeof given === 'string' ? new Request(given, init) : given
    const { pathname, search } = new URL(input.url)
    asked.push({ method: input.method, path: pathname + search, body: input.headers.get('content-type')?.includes('json') ? await input.clone().json().catch(() => undefined) : undefined })
    const found = answers[`${input.method} ${pathname}${search}`] ?? answers[`${input.method} ${pathname}`]
    const said = typeof found === 'function' ? await (found as (request: Request) => unknown)(input) : found
    if (said instanceof Response) return said.clone()
    return said === undefined ? new Response('{}', { status: 404 }) : Response.json(said)
  })
})
afterEach(() => {
  cleanup()
  vi.unstubAllGlobals()
})

export function shown(part: ReactNode) {
  const client = new QueryClient({ defaultOptions: { queries: { retry: false } } })
  return { client, ...render(<MantineProvider env="test"><QueryClientProvider client={client}>{part}</QueryClientProvider></MantineProvider>) }
}

/** A refusal as the API says it. */
export const problem = (status: number, code: string, more: object = {}) =>
  new Response(JSON.stringify({ type: 'about:blank', code, title: code, status, request_id: 'r', ...more }), { status, headers: { 'content-type': 'application/problem+json' } })
