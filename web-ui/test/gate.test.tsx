// @vitest-environment happy-dom
import { act, fireEvent, screen } from '@testing-library/react'
import { beforeEach, expect, test } from 'vitest'
import { call } from '../src/api/client'
import { SessionGate } from '../src/app/SessionGate'
import { answer, asked, problem, shown } from './render'

const me = (restricted: boolean) => ({ id: 'u1', name: 'ada', kind: 'user', description: '', credential: {}, second_factor: { set_up: false }, groups: [], policies: [], password_change_required: restricted })
const change = 'POST /v1/users/u1/password'
const done = () => new Response(null, { status: 204 })
const type = (label: string, value: string) => fireEvent.change(screen.getByLabelText(label), { target: { value } })
const press = async (name: string) => { await act(async () => fireEvent.click(screen.getByRole('button', { name }))) }
const page = () => shown(<SessionGate><label>Begun<input /></label></SessionGate>)

beforeEach(() => {
  Object.defineProperty(navigator, 'locks', { configurable: true, value: { request: (_: string, work: () => Promise<unknown>) => work() } })
})

test('a sign-in with a password that somebody else knows goes on to a new one, and then to the page', async () => {
  answer({
    'GET /v1/me': problem(401, 'unauthenticated'), 'POST /v1/auth/browser_session/prolong': problem(401, 'unauthenticated'),
    'POST /v1/auth/browser_session': () => { answer({ 'GET /v1/me': me(true) }); return { expires_in: 900, password_change_required: true } },
  })
  page()
  fireEvent.change(await screen.findByLabelText('User name'), { target: { value: 'ada' } })
  type('Password', 'correct horse')
  await press('Sign in')
  await screen.findByRole('heading', { name: 'Choose a new password' })
  expect(screen.getByRole('status').textContent).toContain('Somebody else knows the password of ada.')
  expect(screen.queryByLabelText('Begun')).toBeNull()
  expect(screen.queryByLabelText('Current password')).toBeNull()
  expect(document.activeElement).toBe(screen.getByLabelText('New password'))

  answer({ [change]: problem(422, 'validation_failed', { errors: [{ pointer: '/new_password', code: 'too_short', message: 'at least 12 characters' }] }) })
  type('New password', 'short')
  type('New password once more', 'shirt')
  expect((screen.getByRole('button', { name: 'Change password' }) as HTMLButtonElement).disabled).toBe(true)
  type('New password once more', 'short')
  await press('Change password')
  await screen.findByText('at least 12 characters')
  const next = screen.getByLabelText('New password')
  expect(next.getAttribute('aria-invalid')).toBe('true')
  expect(document.getElementById(next.getAttribute('aria-describedby')?.split(' ')[0] ?? '')?.textContent).toBe('at least 12 characters')

  answer({ [change]: () => { answer({ 'GET /v1/me': me(false) }); return done() } })
  type('New password', 'battery staple')
  type('New password once more', 'battery staple')
  await press('Change password')
  await screen.findByLabelText('Begun')
  expect(asked.findLast((one) => one.method === 'POST')?.body).toEqual({ current_password: 'correct horse', new_password: 'battery staple' })
  expect(screen.queryByRole('heading', { name: 'Choose a new password' })).toBeNull()
  expect(JSON.stringify({ ...localStorage })).not.toContain('horse')
})

test('a page that is loaded again asks for the present password as well', async () => {
  answer({ 'GET /v1/me': me(true), [change]: () => { answer({ 'GET /v1/me': me(false) }); return done() } })
  page()
  type(await screen.findByLabelText('Current password').then(() => 'Current password'), 'correct horse')
  type('New password', 'battery staple')
  type('New password once more', 'battery staple')
  await press('Change password')
  await screen.findByLabelText('Begun')
})

test('whoever is at work when it is asked for chooses one, and goes on where they were', async () => {
  answer({ 'GET /v1/me': me(false), 'GET /v1/projects': problem(403, 'password_change_required'), 'GET /v1/hosts': problem(403, 'forbidden') })
  page()
  fireEvent.change(await screen.findByLabelText('Begun'), { target: { value: 'half' } })
  await act(async () => { await call('GET', '/v1/hosts').catch(() => {}) })
  expect(screen.queryByRole('heading', { name: 'Choose a new password' })).toBeNull()
  answer({ 'GET /v1/me': me(true) })
  await act(async () => { await call('GET', '/v1/projects').catch(() => {}) })
  await screen.findByRole('heading', { name: 'Choose a new password' })
  expect(screen.getByLabelText('Begun').closest('[inert]')).not.toBeNull()
  expect(document.body.hasAttribute('data-away')).toBe(true)

  answer({ [change]: () => { answer({ 'GET /v1/me': me(false) }); return done() } })
  type('Current password', 'correct horse')
  type('New password', 'battery staple')
  type('New password once more', 'battery staple')
  await press('Change password')
  expect(screen.getByLabelText('Begun').closest('[inert]')).toBeNull()
  expect((screen.getByLabelText('Begun') as HTMLInputElement).value).toBe('half')
  expect(document.body.hasAttribute('data-away')).toBe(false)
})
