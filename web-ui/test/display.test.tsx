// @vitest-environment happy-dom
import { act, fireEvent, screen } from '@testing-library/react'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { Instance } from '../src/resources/instances'
import Display from '../src/resources/instances/console/Display'
import { answer, shown } from './render'

const made = vi.hoisted(() => [] as { keys: number[] }[])
vi.mock('@novnc/novnc', () => ({
  default: class extends EventTarget {
    keys: number[] = []
    constructor() { super(); made.push(this) }
    sendKey(keysym: number, _: string, down: boolean) { if (down) this.keys.push(keysym) }
    focus() {}
    disconnect() {}
  },
}))

class Socket extends EventTarget {
  static all: Socket[] = []
  constructor() { super(); Socket.all.push(this) }
  close() {}
}

beforeEach(() => {
  made.length = 0
  Socket.all = []
  vi.stubGlobal('WebSocket', Socket)
})
afterEach(() => void vi.useRealTimers())

test('a text that is being typed does not go on into the next connection', async () => {
  answer({ 'POST /v1/projects/demo/instances/i/consoles': { url: 'ws://x/v1/consoles/1', subprotocols: [] } })
  shown(<Display instance={{ id: 'i', name: 'web' } as Instance} project="demo" />)
  await vi.waitFor(() => expect(made).toHaveLength(1))
  fireEvent.click(screen.getByRole('button', { name: 'Type a text' }))
  fireEvent.change(screen.getByLabelText('Text for the guest'), { target: { value: 'x'.repeat(200) } })
  expect((screen.getByRole('button', { name: 'Send' }) as HTMLButtonElement).disabled, 'there is nobody to type it for').toBe(true)
  act(() => void Socket.all[0]?.dispatchEvent(new Event('open')))
  fireEvent.click(screen.getByRole('button', { name: 'Send' }))
  await vi.waitFor(() => expect(made[0]?.keys.length).toBeGreaterThan(3))
  act(() => void Socket.all[0]?.dispatchEvent(new CloseEvent('close', { code: 1006 })))
  await vi.waitFor(() => expect(made).toHaveLength(2), 3000)
  act(() => void Socket.all[1]?.dispatchEvent(new Event('open')))
  await screen.findByText(/did not arrive/)
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(made[1]?.keys).toEqual([])
  expect(made[0]?.keys.length).toBeLessThan(200)
})
