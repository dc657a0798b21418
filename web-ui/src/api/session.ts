// The session lives in cookies that this script cannot read. All it knows is whether the server takes them.
import { problemOf } from './problem'

/** Pages that share the cookies take turns, since of two uses of a refresh token the second ends the session. */
const LOCK = 'cumulo-session'
const PROLONGED = 'cumulo.prolonged'
const SESSION = '/v1/auth/browser_session'

type Listener = () => void
const listeners = new Set<Listener>()

/** Calls back when the session is over, whoever ended it. */
export function onSessionEnd(listener: Listener): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

export function announceSessionEnd(): void {
  for (const listener of listeners) listener()
}

const restrictions = new Set<Listener>()

/** Calls back when the API takes nothing but a new password any more, since an administrator wants one. */
export function onPasswordChangeRequired(listener: Listener): () => void {
  restrictions.add(listener)
  return () => restrictions.delete(listener)
}

function heeded(response: Response): Response {
  if (response.status === 403) {
    void problemOf(response.clone()).then(({ problem }) => {
      if (problem.code === 'password_change_required') for (const listener of restrictions) listener()
    })
  }
  return response
}

/** Asks for new cookies, unless a page has got some since they were `prolonged`. */
async function prolong(prolonged: string | null): Promise<boolean> {
  return navigator.locks.request(LOCK, async () => {
    if (localStorage.getItem(PROLONGED) !== prolonged) return true
    const response = await fetch(`${SESSION}/prolong`, { method: 'POST' })
    if (response.ok) localStorage.setItem(PROLONGED, String(Date.now()))
    return response.ok
  })
}

/**
 * `fetch`, which prolongs the session when its access token is over, and says when that is in vain, or when the session
 * is good for a new password only.
 */
export async function sessionFetch(input: Request | string, init?: RequestInit): Promise<Response> {
  const request = new Request(input, init)
  const again = request.clone()
  const prolonged = localStorage.getItem(PROLONGED)
  const response = await fetch(request)
  if (response.status !== 401) return heeded(response)
  if (await prolong(prolonged)) return heeded(await fetch(again))
  announceSessionEnd()
  return response
}

export async function signIn(username: string, password: string, otp?: string): Promise<void> {
  const response = await fetch(SESSION, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ username, password, ...(otp ? { otp } : {}) }),
  })
  if (!response.ok) throw await problemOf(response)
  localStorage.setItem(PROLONGED, String(Date.now()))
}

export async function signOut(): Promise<void> {
  await fetch(SESSION, { method: 'DELETE' })
}
