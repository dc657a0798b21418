import { describe, expect, test } from 'vitest'
import { isIdle, IDLE_MS } from '../src/app/idle'
import { fieldErrors, problemOf } from '../src/api/problem'
import { replaced } from '../src/api/rows'
import { SseParser } from '../src/api/sse'
import { bodyOf, changed, localErrors } from '../src/parts/fields'
import { ago, amount, bytes, consoleText, duration, shellQuote } from '../src/parts/format'
import { secretOf } from '../src/parts/secret'
import { filtered, nextSort, sorted } from '../src/parts/rows'
import { curlOf, isAskable, nothing, requestOf } from '../src/resources/instances/request'
import type { Column } from '../src/resources/resource'

describe('a stream of events', () => {
  test('is cut into messages wherever the network cuts it', () => {
    const text = ': hello\n\nid: 7\ndata: {"a":1}\n\nid: 8\r\ndata: x\r\ndata: y\r\n\r\nid: 9\ndata: not yet'
    for (let size = 1; size < text.length; size += 1) {
      const parser = new SseParser()
      const messages = []
      for (let at = 0; at < text.length; at += size) messages.push(...parser.push(text.slice(at, at + size)))
      expect(messages, `pieces of ${size}`).toEqual([{ id: '7', data: '{"a":1}' }, { id: '8', data: 'x\ny' }])
    }
  })
})

describe('a problem', () => {
  const problem = { type: 'about:blank', code: 'validation_failed', title: 't', status: 422, request_id: 'r' }

  test('is shown at the fields that it is about', () => {
    const errors = [
      { pointer: '/name', code: 'x', message: 'is taken' },
      { pointer: '/networks/0/address', code: 'x', message: 'is not free' },
      { pointer: '/networks/1', code: 'x', message: 'unknown' },
      { pointer: '/a~1b~0c', code: 'x', message: 'odd' },
    ]
    expect(fieldErrors({ ...problem, errors })).toEqual({
      name: 'is taken', networks: '0/address: is not free; 1: unknown', 'a/b~c': 'odd',
    })
    expect(fieldErrors(undefined)).toEqual({})
  })

  test('has words even when a proxy answers in the place of the API', async () => {
    const page = new Response('<html>Bad gateway</html>', { status: 502, headers: { 'content-type': 'text/html' } })
    expect((await problemOf(page)).problem).toMatchObject({ code: 'no_answer', status: 502 })
    const own = new Response(JSON.stringify(problem), { status: 422, headers: { 'content-type': 'application/problem+json' } })
    expect((await problemOf(own)).problem).toEqual(problem)
  })
})

describe('a list', () => {
  interface Thing { id: string; name: string; size: number }
  const columns: Column<Thing>[] = [{ key: 'name', value: (row) => row.name }, { key: 'size', value: (row) => row.size }]
  const rows = [['a', 'web-10', 1], ['b', 'web-2', 30], ['c', 'db', 4]].map(([id, name, size]) => ({ id, name, size }) as Thing)
  const ids = (things: Thing[]) => things.map(({ id }) => id).join('')

  test('is filtered by every word, in one column if it is named', () => {
    for (const [filter, expected] of [['', 'abc'], ['web', 'ab'], ['WEB 30', 'b'], ['size:3', 'b'], ['name:3', ''], ['c', 'c'], ['unknown:x', '']] as const) {
      expect(ids(filtered(rows, columns, filter)), filter).toBe(expected)
    }
  })

  test('is sorted as people count, both ways, and by numbers', () => {
    expect(ids(sorted(rows, columns, 'name'))).toBe('cba')
    expect(ids(sorted(rows, columns, '-name'))).toBe('abc')
    expect(ids(sorted(rows, columns, 'size'))).toBe('acb')
    expect(ids(sorted(rows, columns, 'nothing'))).toBe('abc')
    expect([nextSort(undefined, 'x'), nextSort('x', 'x'), nextSort('-x', 'x'), nextSort('y', 'x')]).toEqual(['x', '-x', undefined, 'x'])
  })

  test('takes in what has changed, and lets go of what is gone', () => {
    expect(replaced(rows, 'b', { id: 'b', name: 'new' }).map(({ name }) => name)).toEqual(['web-10', 'new', 'db'])
    expect(replaced(rows, 'z', { id: 'z' })).toHaveLength(4)
    expect(replaced(rows, 'a', undefined).map(({ id }) => id)).toEqual(['b', 'c'])
    expect(replaced(rows, 'z', undefined)).toBe(rows)
  })
})

describe('a form', () => {
  const fields = ['name', 'size_gib', 'labels', 'source']

  test('knows the rules of the API before it is asked', () => {
    expect(localErrors('CreateVolume', fields, {})).toHaveProperty('name')
    expect(localErrors('CreateVolume', fields, { name: 'Not A Name' })).toHaveProperty('name')
    expect(localErrors('CreateVolume', fields, { name: 'data', size_gib: 0 })).toHaveProperty('size_gib')
    expect(localErrors('CreateVolume', fields, { name: 'data', source: '{' })).toHaveProperty('source')
    expect(localErrors('CreateVolume', fields, { name: 'data', size_gib: 2, source: '{}' })).toEqual({})
  })

  test('sends what was filled in, and only that', () => {
    expect(bodyOf('CreateVolume', fields, { name: 'data', size_gib: '', labels: ['tier=web', 'owner', 'a=b=c'], source: '{"image":"x"}' })).toEqual({
      name: 'data', labels: { tier: 'web', owner: '', a: 'b=c' }, source: { image: 'x' },
    })
  })

  test('asks for an instance as the API wants it, and says the same with curl', () => {
    const wishes = { ...nothing, name: 'web', image: 'debian', instance_type: 'tiny' }
    expect(isAskable(nothing)).toBe(false)
    expect(isAskable(wishes)).toBe(true)
    expect(requestOf(wishes)).toEqual({ name: 'web', image: 'debian', instance_type: 'tiny' })
    expect(requestOf({ ...wishes, network: null })).toHaveProperty('networks', [])
    expect(requestOf({ ...wishes, network: 'db', ssh: ' ssh-ed25519 A \n\n', labels: ['a=b=c'] })).toMatchObject({
      networks: [{ network: 'db' }], ssh_authorized_keys: ['ssh-ed25519 A'], labels: { a: 'b=c' },
    })
    const curl = curlOf('https://cloud', 'demo', { user_data: "echo 'it'" })
    expect(curl).toContain(`'https://cloud/v1/projects/demo/instances'`)
    expect(curl).toContain(`'\\''it'\\''`)
  })
})

describe('words', () => {
  test('for numbers and times', () => {
    expect([bytes(0), bytes(1023), bytes(1536), bytes(15_936_000)]).toEqual(['0 B', '1023 B', '1.5 KiB', '15 MiB'])
    expect([amount('memory_mib', 2048), amount('disk_gib', 1024), amount('vcpus', 4000)]).toEqual(['2 GiB', '1 TiB', '4,000'])
    expect([duration(40), duration(3400), duration(125_000)]).toEqual(['40 ms', '3.4 s', '2 min 5 s'])
    const now = new Date('2026-01-02T00:00:00Z')
    const before = (seconds: number) => ago(new Date(now.getTime() - seconds * 1000), now)
    expect([before(1), before(59), before(60), before(7200), before(200_000)]).toEqual(['now', '59 s ago', '1 min ago', '2 h ago', '2 d ago'])
    expect([before(-1), before(-90), before(-7200), before(-2_592_000)]).toEqual(['now', 'in 1 min', 'in 2 h', 'in 30 d'])
    expect(shellQuote("a'b")).toBe(`'a'\\''b'`)
  })

  test('of a guest steer nothing', () => {
    expect(consoleText('\u001b[31mred\u001b[0m\r\nnext')).toBe('red\nnext')
    expect(consoleText('\u001b]0;owned\u0007title')).toBe('title')
    expect(consoleText('10%\r50%\r100%\n')).toBe('100%\n')
    expect(consoleText('a\u202eb\u0000c\u0008d\u009b31m')).toBe('abcd31m')
    expect(consoleText('<script>alert(1)</script>\tx')).toBe('<script>alert(1)</script>\tx')
  })

  test('nobody is away before the time', () => {
    expect(isIdle(0, IDLE_MS - 1)).toBe(false)
    expect(isIdle(0, IDLE_MS)).toBe(true)
  })
})

describe('a change', () => {
  test('says what differs, what was emptied, and which labels are gone', () => {
    const schema = 'UpdateInstance'
    const before = { name: 'web', description: 'old', labels: { a: '1', b: '2' }, delete_protection: true }
    for (const [now, expected] of [
      [before, {}], [{ ...before, name: 'db' }, { name: 'db' }], [{ ...before, delete_protection: false }, { delete_protection: false }],
      [{ name: 'web', labels: { a: '1' }, delete_protection: true }, { description: '', labels: { a: '1', b: null } }],
      [{ name: 'web', description: 'old', delete_protection: true }, { labels: { a: null, b: null } }],
    ] as const) expect(changed(schema, now, before), JSON.stringify(now)).toEqual(expected)
  })

  test('shows once what is shown once', () => {
    expect(secretOf({ name: 'laptop', public_key: 'x', private_key: 'PEM' })).toEqual({ field: 'private_key', text: 'PEM', file: 'laptop.pem' })
    expect(secretOf({ key: 'cumulo_key_x' })).toMatchObject({ field: 'key', file: undefined })
    for (const none of [{ name: 'laptop', private_key: null }, undefined, 'text', null]) expect(secretOf(none)).toBeUndefined()
  })
})
