import { afterEach, describe, expect, test, vi } from 'vitest'
import { ApiProblem } from '../src/api/problem'
import { before } from '../src/resources/instances/console/history'
import { keysOf, typed } from '../src/resources/instances/console/keys'
import { Typist } from '../src/resources/instances/console/typist'
import { addressOf, comesBack, mayPass } from '../src/resources/instances/console/ticket'

describe('a text for the display', () => {
  test('becomes keys of a US keyboard, with Shift where it needs it', () => {
    const codes = (text: string) => typed(text).strokes.map((keys) => keys.map(([, code]) => code).join('+'))
    expect(codes('aZ1!\n')).toEqual(['KeyA', 'ShiftLeft+KeyZ', 'Digit1', 'ShiftLeft+Digit1', 'Enter'])
    expect(codes('|\\_-~`"\'?/')).toEqual([
      'ShiftLeft+Backslash', 'Backslash', 'ShiftLeft+Minus', 'Minus', 'ShiftLeft+Backquote', 'Backquote', 'ShiftLeft+Quote', 'Quote', 'ShiftLeft+Slash', 'Slash',
    ])
    for (let code = 32; code < 127; code += 1) {
      const keys = keysOf(String.fromCharCode(code))
      expect(keys.at(-1), String.fromCharCode(code)).toEqual([code, expect.stringMatching(/^\w+$/)])
    }
  })

  test('says which characters have no key, and leaves them out', () => {
    expect(typed('aäß€a')).toMatchObject({ missing: ['ä', 'ß', '€'], strokes: [[[97, 'KeyA']], [[97, 'KeyA']]] })
    expect(typed('a\r\nb').strokes).toHaveLength(3)
  })
})

describe('a serial port', () => {
  const bytes = (text: string) => new TextEncoder().encode(text)
  test('shows what log and live bytes have in common once', () => {
    for (const [log, live, expected] of [
      ['boot\nlogin: ', 'login: ', 'boot\n'], ['boot\nlog', 'login: ', 'boot\n'], ['boot', '', 'boot'], ['', 'x', ''], ['boot', 'new', 'boot'], ['aaa', 'aa', 'a'], ['aab', 'aabaab', ''], ['xababa', 'ababac', 'x'], ['ab', 'xab', 'ab'],
    ] as const) expect(new TextDecoder().decode(before(bytes(log), bytes(live))), `${log}|${live}`).toBe(expected)
  })

  test('finds that in a blink, however much a guest repeats itself', () => {
    const log = bytes('a'.repeat(1 << 18))
    const started = performance.now()
    expect(before(log, bytes(`${'a'.repeat((1 << 18) - 1)}b`))).toHaveLength(1)
    expect(before(log, bytes(`b${'a'.repeat(1 << 18)}`))).toHaveLength(log.length)
    expect(before(log, log)).toHaveLength(0)
    expect(performance.now() - started).toBeLessThan(1000)
  })
})

describe('who types a text', () => {
  afterEach(() => void vi.useRealTimers())
  const stroke = (text: string) => typed(text).strokes
  test('ends one before the next, and with the connection for good', () => {
    vi.useFakeTimers()
    const pressed: string[] = []
    const typist = new Typist((keys) => void pressed.push(keys.map(([keysym]) => String.fromCharCode(keysym)).join('')))
    typist.type(stroke('ab'))
    typist.type(stroke('cd'))
    vi.advanceTimersByTime(40)
    expect(pressed).toEqual(['a', 'b', 'c'])
    expect(typist.stop()).toBe(1)
    vi.advanceTimersByTime(1000)
    expect(pressed).toEqual(['a', 'b', 'c'])
    expect(typist.stop()).toBe(0)
    typist.type(stroke('e'))
    vi.advanceTimersByTime(1000)
    expect(pressed.at(-1)).toBe('e')
  })
})

describe('a ticket', () => {
  test('is used at the address of the page, which is where the page may connect', () => {
    const page = { protocol: 'https:', host: 'cloud.example' }
    expect(addressOf('ws://10.0.0.1:8080/v1/consoles/1', page)).toBe('wss://cloud.example/v1/consoles/1')
    expect(addressOf('wss://x/v1/consoles/1', { protocol: 'http:', host: '127.0.0.1:8080' })).toBe('ws://127.0.0.1:8080/v1/consoles/1')
  })

  test('is asked for again after a break, and not after an end', () => {
    expect([1001, 1006, 1011].map(comesBack)).toEqual([true, true, true])
    expect([1000, 4401, 4403, 4408, 4409].map(comesBack)).toEqual([false, false, false, false, false])
    const refusal = (status: number, code: string) => new ApiProblem({ type: '', title: '', request_id: '', status, code } as never)
    expect(mayPass(refusal(409, 'in_use'), 0)).toBe(false)
    expect(mayPass(refusal(409, 'in_use'), 1)).toBe(true)
    expect(mayPass(refusal(503, 'host_unreachable'), 0)).toBe(true)
    expect(mayPass(refusal(403, 'forbidden'), 3)).toBe(false)
    expect(mayPass(new TypeError('no network'), 0)).toBe(true)
  })
})
