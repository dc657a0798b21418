// @vitest-environment happy-dom
import { act, fireEvent, screen, within } from '@testing-library/react'
import { describe, expect, test, vi } from 'vitest'
import type { Schemas } from '../src/api/client'
import { changed } from '../src/parts/fields'
import type { Instance } from '../src/resources/instances'
import { ForceDetach } from '../src/resources/instances/ForceDetach'
import { Upload } from '../src/resources/images/Upload'
import { WhoCan } from '../src/resources/policies/WhoCan'
import { answer, asked, problem, shown } from './render'

const me = vi.hoisted(() => ({ id: 'u', name: 'root', policies: [] as object[] }))
vi.mock('../src/app/SessionGate', () => ({ useMe: () => me }))

const calls = (method: string) => asked.filter((call) => call.method === method)

describe('a schedule', () => {
  const references = { instance: 'instances', volume: 'volumes' }
  test('changes its time or what it is of, and what cannot be empty gives way', () => {
    for (const [now, before, expected] of [
      [{ at: '04:00' }, { every_hours: 6 }, { at: '04:00' }],
      [{ every_hours: 6 }, { at: '03:00', weekday: 'monday' }, { every_hours: 6, weekday: null }],
      [{ instance: 'web' }, { volume: 'data' }, { instance: 'web' }],
      [{}, { description: 'old' }, { description: '' }],
      [{ keep: 3 }, { keep: 3, description: 'old' }, { description: '' }],
    ] as const) expect(changed('UpdateSnapshotSchedule', now, before, references), JSON.stringify(now)).toEqual(expected)
  })
})

describe('a volume', () => {
  const web = { id: 'i', name: 'web', volumes: [{ volume: { id: 'v', name: 'data' } }] } as unknown as Instance
  const path = '/v1/projects/demo/instances/i/force_detach_volume'
  const may = 'GET /v1/projects/demo/policies:what_can'
  const answered = (prospect: string) => ({ items: [{ action: 'compute:DeleteInstance', resource: '', prospect: 'allowed', statements: [] }, { action: 'compute:ForceDetachVolume', resource: '', prospect, statements: [] }] })
  const button = () => <ForceDetach instance={web} project="demo" disk={web.volumes[0] as Schemas['InstanceVolume']} />

  test('is taken away by force by whoever may, after its name has been typed', async () => {
    me.policies = [{ name: 'administrator', via: 'principal' }]
    answer({ [may]: answered('allowed'), [`POST ${path}`]: {} })
    shown(button())
    fireEvent.click(await screen.findByRole('button', { name: 'Detach by force: data' }))
    const dialog = await screen.findByRole('dialog')
    const sure = within(dialog).getByRole<HTMLButtonElement>('button', { name: 'Detach by force' })
    expect(sure.disabled).toBe(true)
    fireEvent.click(within(dialog).getByRole('switch', { name: /Cut the guest off/ }))
    fireEvent.change(within(dialog).getByLabelText('Type data to confirm'), { target: { value: 'data' } })
    expect(sure.disabled).toBe(false)
    fireEvent.click(sure)
    await vi.waitFor(() => expect(calls('POST')).toEqual([{ method: 'POST', path, body: { volume: 'v', stop_instance: true } }]))
    expect(asked[0]?.path).toBe('/v1/projects/demo/policies:what_can?user=u')
  })

  test('is offered to whoever may under conditions, and to whoever may not ask', async () => {
    me.policies = [{ name: 'keeper', via: 'principal' }]
    for (const said of [answered('depends'), problem(403, 'forbidden')]) {
      answer({ [may]: said })
      const { unmount } = shown(button())
      await screen.findByRole('button', { name: 'Detach by force: data' })
      unmount()
    }
    // Nothing that could be refused, and be in the audit log, was asked.
    expect(calls('POST')).toEqual([])
  })

  test('offers nobody else to do so, and asks nothing for those who cannot', async () => {
    me.policies = [{ name: 'administrator', via: 'principal' }]
    answer({ [may]: answered('denied') })
    shown(button())
    await vi.waitFor(() => expect(asked).toHaveLength(1))
    await act(async () => { await new Promise((resolve) => setTimeout(resolve, 20)) })
    expect(screen.queryByRole('button')).toBeNull()
    me.policies = [{ name: 'everyone', via: 'everyone' }, { name: 'project-owner', via: 'principal', project: { id: 'p', name: 'demo' } }]
    shown(button())
    await act(async () => { await new Promise((resolve) => setTimeout(resolve, 20)) })
    expect(asked).toHaveLength(1)
  })
})

describe('an upload that was begun', () => {
  const image = { id: 'm', name: 'big' } as Schemas['Image']
  const base = '/v1/projects/demo/images/m/uploads'
  const begun = { id: 'b', image_id: 'm', size_bytes: 5, offset_bytes: 3, created_at: new Date().toISOString(), expires_at: '' }
  const choose = (index: number, text: string) => fireEvent.change(document.querySelectorAll('input[type=file]')[index] as Element, { target: { files: [new File([text], 'big.qcow2')] } })

  test('goes on with the same file where it stopped, and with no other', async () => {
    const parts: [string | null, string][] = []
    answer({
      [`GET ${base}`]: { items: [begun] }, [`GET ${base}/b`]: begun, [`POST ${base}/b/finish`]: {},
      [`PATCH ${base}/b`]: async (request: Request) => { parts.push([request.headers.get('upload-offset'), await request.text()]); return {} },
    })
    shown(<Upload image={image} project="demo" />)
    await screen.findByText(/3 B of 5 B/)
    choose(1, 'longer than that')
    await screen.findByText(/of another size/)
    expect(parts).toEqual([])
    choose(1, 'abcde')
    await screen.findByText(/Everything has arrived/)
    expect(parts).toEqual([['3', 'de']])
    expect(calls('POST').map((call) => call.path)).toEqual([`${base}/b/finish`])
  })

  test('is given up on demand', async () => {
    let items = [begun]
    answer({ [`GET ${base}`]: () => ({ items }), [`DELETE ${base}/b`]: () => { items = []; return new Response(null, { status: 204 }) } })
    shown(<Upload image={image} project="demo" />)
    fireEvent.click(await screen.findByRole('button', { name: 'Abandon: 5 B' }))
    fireEvent.click(within(await screen.findByRole('dialog')).getByRole('button', { name: 'Abandon' }))
    await vi.waitFor(() => expect(screen.queryByText(/3 B of 5 B/)).toBeNull())
  })
})

describe('who can', () => {
  const actions = { items: [['compute:GetInstance', 'compute:demo:instance/*'], ['compute:DeleteInstance', 'compute:demo:instance/*'], ['volume:DeleteVolume', 'volume:demo:volume/*']].map(([action, resource]) => ({ action, resource: `crn:cumulo:${resource}` })) }
  const base = '/v1/projects/demo/policies'

  test('delete an instance is what is asked first, and the statements are named', async () => {
    answer({
      [`GET ${base}:what_can`]: actions,
      [`GET ${base}:who_can`]: { items: [
        { subject: { kind: 'user', id: '1', name: 'eve' }, prospect: 'depends', statements: [{ policy: 'look', sid: 'OnlyWeb', statement: 1, effect: 'Allow' }] },
        { subject: { kind: 'everyone' }, prospect: 'allowed', statements: [] },
      ] },
    })
    shown(<WhoCan project="demo" of="instance/web" />)
    const table = await screen.findByRole('region', { name: 'Who can' })
    for (const text of ['eve', 'under conditions', 'Allow by OnlyWeb in look', /^everyone/]) within(table).getAllByText(text)
    expect(asked.at(-1)?.path).toBe(`${base}:who_can?action=compute%3ADeleteInstance&resource=instance%2Fweb&limit=500`)
    fireEvent.change(screen.getByRole('combobox', { name: 'Action' }), { target: { value: 'compute:GetInstance' } })
    await vi.waitFor(() => expect(asked.at(-1)?.path).toContain('GetInstance'))
  })

  test('says so when it is nobody, and when one may not ask', async () => {
    answer({ [`GET ${base}:what_can`]: actions, [`GET ${base}:who_can`]: { items: [] } })
    shown(<WhoCan project="demo" of="volume/data" />)
    await screen.findByText('No policy allows volume:DeleteVolume to anybody here.')
    const denied = problem(403, 'forbidden', { denial: { action: 'iam:SimulatePolicies', resource: 'crn', statements: [] } })
    answer({ [`GET ${base}:what_can`]: denied, [`GET ${base}:who_can`]: denied })
    shown(<WhoCan project="demo" />)
    await screen.findByText('You may not do this')
    fireEvent.change(screen.getAllByRole('combobox', { name: 'Action' }).at(-1) as Element, { target: { value: 'compute:StopInstance' } })
    await vi.waitFor(() => expect(asked.at(-1)?.path).toContain('StopInstance'))
    await screen.findByText('You may not do this')
  })
})
