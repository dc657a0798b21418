import { afterEach, beforeEach, expect, test, vi } from 'vitest'

const calls: string[] = []
let answers: Record<string, (() => Response)[]>

beforeEach(() => {
  vi.resetModules()
  calls.length = 0
  const store = new Map<string, string>()
  vi.stubGlobal('localStorage', { getItem: (key: string) => store.get(key) ?? null, setItem: (key: string, value: string) => store.set(key, value) })
  let turn: Promise<unknown> = Promise.resolve()
  vi.stubGlobal('navigator', { locks: { request: (_: string, work: () => Promise<unknown>) => (turn = turn.then(work)) } })
  vi.stubGlobal('fetch', (input: Request | string) => {
    const path = typeof input === 'string' ? input : new URL(input.url).pathname
    calls.push(path)
    const next = answers[path]?.shift()
    return Promise.resolve(next ? next() : new Response('{}', { status: 200 }))
  })
})
afterEach(() => vi.unstubAllGlobals())

const refused = () => new Response('{}', { status: 401 })
const prolong = '/v1/auth/browser_session/prolong'

test('two calls at the end of an access token prolong the session once', async () => {
  answers = { '/a': [refused], '/b': [refused] }
  const { sessionFetch } = await import('../src/api/session')
  const [a, b] = await Promise.all([sessionFetch('http://cloud/a'), sessionFetch('http://cloud/b')])
  expect([a.status, b.status]).toEqual([200, 200])
  expect(calls.filter((path) => path === prolong)).toHaveLength(1)
})

test('a session that is over is announced, and the refusal comes back', async () => {
  answers = { '/a': [refused], [prolong]: [refused] }
  const { onSessionEnd, sessionFetch } = await import('../src/api/session')
  const ended = vi.fn()
  onSessionEnd(ended)
  expect((await sessionFetch('http://cloud/a')).status).toBe(401)
  expect(ended).toHaveBeenCalledOnce()
  expect(calls).toEqual(['/a', prolong])
})
