import { Button, Group, PasswordInput, Stack, Text } from '@mantine/core'
import { useState, type FormEvent, type ReactNode } from 'react'
import { call, fill } from '../api/client'
import { asProblem, fieldErrors } from '../api/problem'
import { ProblemAlert } from '../parts/ProblemAlert'
import { t } from '../strings'

interface Props {
  /** Whose password it is. */
  user: { id: string; name: string }
  /** The present password, where it has just been typed. */
  current?: string | undefined
  autoFocus?: boolean
  button?: ReactNode
  describedBy?: string
  onDone?: () => Promise<void> | void
}

/** Changes one's own password; what the API says of a field stands at the field. */
export function PasswordForm({ user, current, autoFocus = false, button, describedBy, onDone }: Props) {
  const [values, setValues] = useState({ current: '', next: '', repeat: '' })
  const [error, setError] = useState<unknown>()
  const [done, setDone] = useState(false)
  const [busy, setBusy] = useState(false)
  const said = fieldErrors(error ? asProblem(error) : undefined)
  // One that was typed in the form before, and has changed since, is asked for here.
  const asks = current === undefined || said['current_password'] !== undefined
  const differ = values.repeat !== '' && values.repeat !== values.next
  const known = asks ? values.current : current
  const set = (key: keyof typeof values) => (event: { currentTarget: { value: string } }) => { setDone(false); setValues({ ...values, [key]: event.currentTarget.value }) }
  const submit = async (event: FormEvent) => {
    event.preventDefault()
    setError(undefined)
    setBusy(true)
    try {
      await call('POST', fill('/v1/users/{id}/password', { id: user.id }), { body: { current_password: known, new_password: values.next } })
      setDone(true)
      setValues({ current: '', next: '', repeat: '' })
      await onDone?.()
    } catch (problem) {
      setError(problem)
    } finally {
      setBusy(false)
    }
  }
  return (
    <form onSubmit={(event) => void submit(event)} aria-describedby={describedBy}>
      <Stack gap="sm">
        {/* For the browser's store of passwords. */}
        <input type="text" name="username" autoComplete="username" value={user.name} readOnly hidden />
        {asks && <PasswordInput label={t.password.current} value={values.current} onChange={set('current')} autoComplete="current-password" autoFocus={autoFocus} error={said['current_password']} aria-invalid={Boolean(said['current_password'])} />}
        <PasswordInput label={t.password.next} value={values.next} onChange={set('next')} autoComplete="new-password" autoFocus={autoFocus && !asks} error={said['new_password']} aria-invalid={Boolean(said['new_password'])} />
        <PasswordInput label={t.password.repeat} value={values.repeat} onChange={set('repeat')} autoComplete="new-password" error={differ ? t.password.differ : undefined} aria-invalid={Boolean(differ)} />
        {Boolean(error) && Object.keys(said).length === 0 && <ProblemAlert error={error} />}
        <Group>
          <Button type="submit" loading={busy} disabled={!known || !values.next || values.next !== values.repeat}>{t.password.change}</Button>
          {button}
          {done && !onDone && <Text size="sm" role="status">{t.password.changed}</Text>}
        </Group>
      </Stack>
    </form>
  )
}
