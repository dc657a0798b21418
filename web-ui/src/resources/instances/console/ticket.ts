// A console is a WebSocket that a ticket opens once. Each connection has a ticket of its own.
import { call, fill, type Schemas } from '../../../api/client'
import { asProblem } from '../../../api/problem'

export type ConsoleKind = Schemas['ConsoleKind']

/** How often it is tried again, and after how many milliseconds each time. */
export const WAITS_MS = [500, 1000, 2000, 4000, 8000] as const

/** Closed by who may let it be opened again: a server that stops, a connection that broke, a database that was away. */
const COMES_BACK = new Set([1001, 1005, 1006, 1011, 1012])

export async function openSocket(project: string, instance: string, kind: ConsoleKind, signal: AbortSignal): Promise<WebSocket> {
  const path = fill('/v1/projects/{project}/instances/{instance}/consoles', { project, instance })
  const ticket = await call<Schemas['Console']>('POST', path, { body: { kind }, signal })
  const socket = new WebSocket(addressOf(ticket.url, location), ticket.subprotocols ?? [])
  socket.binaryType = 'arraybuffer'
  return socket
}

/** The console at the address of this page, which the page's policy allows, whatever name the API has for itself. */
export function addressOf(url: string, page: { protocol: string; host: string }): string {
  return `${page.protocol === 'https:' ? 'wss:' : 'ws:'}//${page.host}${new URL(url).pathname}`
}

/** Whether a console that closed with this code is worth another ticket, without being asked. */
export const comesBack = (code: number) => COMES_BACK.has(code)

/** Whether a refused ticket may be given a moment later; `in_use` may be our own connection that has just broken. */
export function mayPass(error: unknown, failures: number): boolean {
  const { status, code } = asProblem(error)
  return status === 0 || status === 503 || (code === 'in_use' && failures > 0)
}
