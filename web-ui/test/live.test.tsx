// @vitest-environment happy-dom
import { QueryClient } from '@tanstack/react-query'
import { act, fireEvent, screen } from '@testing-library/react'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { Changes, useLive } from '../src/api/live'
import { ResourceForm } from '../src/parts/ResourceForm'
import { answer, asked, shown } from './render'

const path = '/v1/projects/demo/volumes'
const key = ['projects', 'demo', 'volumes']
const event = (position: number, change = 'state') => ({ position, kind: 'volume', change, resource_id: 'v', resource_name: 'data', at: '' })
const row = (size: number) => ({ id: 'v', name: 'data', size_gib: size })

/** An answer that comes when one says so. */
function later() {
  let give: (value: unknown) => void = () => {}
  const promise = new Promise((resolve) => { give = resolve })
  return { promise, give }
}

function begin() {
  const client = new QueryClient({ defaultOptions: { queries: { retry: false, staleTime: Infinity } } })
  client.setQueryData(key, [row(1)])
  return { client, changes: new Changes(client, 'demo'), rows: () => client.getQueryData<{ size_gib: number }[]>(key) }
}

describe('what has changed', () => {
  test('is not undone by an answer that was asked for before it', async () => {
    const { changes, rows } = begin()
    const answers = [later(), later()]
    let turn = 0
    answer({ [`GET ${path}/v`]: () => answers[turn++]?.promise })
    changes.note(event(1))
    await vi.waitFor(() => expect(turn).toBe(1))
    changes.note(event(2))
    await vi.waitFor(() => expect(turn).toBe(2))
    answers[1]?.give(row(3))
    await vi.waitFor(() => expect(rows()).toEqual([row(3)]))
    answers[0]?.give(row(2))
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(rows()).toEqual([row(3)])
  })

  test('does not come back once it is deleted', async () => {
    const { changes, rows } = begin()
    const old = later()
    answer({ [`GET ${path}/v`]: () => old.promise })
    changes.note(event(1))
    await vi.waitFor(() => expect(asked).toHaveLength(1))
    changes.note(event(2, 'deleted'))
    await vi.waitFor(() => expect(rows()).toEqual([]))
    old.give(row(2))
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(rows()).toEqual([])
  })

  test('outlasts a list that was read before it and arrives after it', async () => {
    for (const change of ['state', 'deleted']) {
      const { client, changes, rows } = begin()
      const list = later()
      void client.fetchQuery({ queryKey: key, queryFn: () => list.promise, staleTime: 0 })
      answer({ [`GET ${path}/v`]: row(3) })
      changes.note(event(1, change))
      const expected = change === 'deleted' ? [] : [row(3)]
      await vi.waitFor(() => expect(rows()).toEqual(expected))
      list.give([row(1)])
      await vi.waitFor(() => expect(client.isFetching()).toBe(0))
      await vi.waitFor(() => expect(rows()).toEqual(expected))
    }
  })
})

describe('the stream of events', () => {
  afterEach(() => void vi.useRealTimers())
  const Shown = () => <p>{useLive('demo')}</p>

  test('is lost when even its heartbeat is missing, and goes on from the newest event', async () => {
    const positions: (string | null)[] = []
    let write: (text: string) => void = () => {}
    answer({
      'GET /v1/projects/demo/events': { head: 7 },
      'GET /v1/projects/demo/events/stream': (request: Request) => {
        positions.push(request.headers.get('last-event-id'))
        // The second connection is refused, as by a proxy before a server that is not there.
        if (positions.length === 2) return new Response('', { status: 502 })
        return new Response(new ReadableStream({
          start(stream) {
            write = (text) => stream.enqueue(new TextEncoder().encode(text))
            request.signal.addEventListener('abort', () => stream.error(new Error('aborted')))
          },
        }))
      },
    })
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    shown(<Shown />)
    const settle = () => act(() => vi.advanceTimersByTimeAsync(100))
    await settle()
    screen.getByText('live')
    write(`id: 8\ndata: ${JSON.stringify(event(8))}\n\n`)
    for (let beats = 0; beats < 4; beats += 1) {
      await act(() => vi.advanceTimersByTimeAsync(15_000))
      write(':\n\n')
      await settle()
    }
    expect(positions, 'a heartbeat keeps it').toEqual(['7'])
    await act(() => vi.advanceTimersByTimeAsync(40_000))
    await act(() => vi.advanceTimersByTimeAsync(600))
    screen.getByText('lost')
    await act(() => vi.advanceTimersByTimeAsync(1500))
    screen.getByText('live')
    expect(positions).toEqual(['7', '8', '8'])
  })
})

describe('a form', () => {
  test('asks the API while one types, and keeps no password in the key of what it asked', async () => {
    answer({ 'POST /v1/users': { id: 'u' } })
    const { client, unmount } = shown(<ResourceForm spec={{ schema: 'CreateUser', fields: ['name', 'password'] }} method="POST" path="/v1/users" project={undefined} button="Create" onDone={() => {}} onCancel={() => {}} />)
    fireEvent.change(screen.getByLabelText(/Name/), { target: { value: 'eve' } })
    fireEvent.change(screen.getByLabelText(/Password/), { target: { value: 'horse-battery-staple' } })
    await screen.findByText(/The API would accept this/)
    expect(asked.at(-1)).toEqual({ method: 'POST', path: '/v1/users?dry_run=true', body: { name: 'eve', password: 'horse-battery-staple' } })
    const keys = () => JSON.stringify(client.getQueryCache().getAll().map(({ queryKey, queryHash }) => [queryKey, queryHash]))
    expect(keys()).toContain('dry run')
    expect(keys()).not.toContain('horse')
    unmount()
    await vi.waitFor(() => expect(keys()).not.toContain('dry run'))
  })
})
