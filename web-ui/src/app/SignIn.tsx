import { Alert, Anchor, Button, Center, Group, Image, Paper, PasswordInput, Stack, Text, TextInput, Title } from '@mantine/core'
import { useId, useState, type FormEvent, type ReactNode } from 'react'
import { api } from '../api/client'
import { ApiProblem, asProblem } from '../api/problem'
import { signIn } from '../api/session'
import { ProblemAlert } from '../parts/ProblemAlert'
import { t } from '../strings'
import { PasswordForm } from './PasswordForm'

interface Props {
  notice: string | undefined
  /** Who was here; nobody else is expected. */
  username: string | undefined
  /** With the password that was typed, in case another one has to be chosen. */
  onDone: (password: string) => Promise<void>
}

export function SignIn({ notice, username, onDone }: Props) {
  const [redeeming, setRedeeming] = useState(false)
  const [message, setMessage] = useState(notice)
  return (
    <Card title={t.product}>
      {message && <Alert variant="light" role="status">{message}</Alert>}
      {redeeming ? (
        <Redeem back={() => setRedeeming(false)} done={() => { setRedeeming(false); setMessage(t.signIn.redeemed) }} />
      ) : (
        <>
          <Credentials username={username} onDone={onDone} />
          <Anchor component="button" type="button" size="sm" onClick={() => setRedeeming(true)}>{t.signIn.redeem}</Anchor>
          {!username && <Text size="xs" c="dimmed">{t.signIn.firstRun}</Text>}
        </>
      )}
    </Card>
  )
}

function Card({ title, children }: { title: string; children: ReactNode }) {
  return (
    <Center mih="100dvh" p="md" component="main">
      <Paper withBorder p="xl" w={420} maw="100%" shadow="sm">
        <Stack>
          <Group gap="sm">
            <Image src="/icon.svg" alt="" w={36} h={36} />
            <Title order={1} size="h3">{title}</Title>
          </Group>
          {children}
        </Stack>
      </Paper>
    </Center>
  )
}

interface ChooseProps {
  user: { id: string; name: string }
  /** The password of the sign-in, if it was just now. */
  current: string | undefined
  onDone: () => Promise<void>
  onLeave: () => void
}

/** The step after a sign-in with a password that somebody else knows. */
export function ChoosePassword({ user, current, onDone, onLeave }: ChooseProps) {
  const why = useId()
  return (
    <Card title={t.password.choose}>
      <Text id={why} size="sm" role="status">{t.password.why(user.name)}</Text>
      <PasswordForm user={user} current={current} autoFocus describedBy={why} onDone={onDone} button={<Button variant="subtle" onClick={onLeave}>{t.signOut}</Button>} />
    </Card>
  )
}

function Credentials({ username, onDone }: Pick<Props, 'username' | 'onDone'>) {
  const [name, setName] = useState(username ?? '')
  const [password, setPassword] = useState('')
  const [otp, setOtp] = useState('')
  const [asked, setAsked] = useState(false)
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const submit = async (event: FormEvent) => {
    event.preventDefault()
    setBusy(true)
    setError(undefined)
    try {
      await signIn(name, password, asked ? otp.trim() : undefined)
      await onDone(password)
    } catch (problem) {
      const { code } = asProblem(problem)
      if (code === 'second_factor_required' && !asked) setAsked(true)
      else setError(problem)
      setOtp('')
    } finally {
      setBusy(false)
    }
  }
  return (
    <form onSubmit={(event) => void submit(event)}>
      <Stack>
        {!asked && (
          <>
            <TextInput label={t.signIn.username} value={name} onChange={(event) => setName(event.currentTarget.value)} autoComplete="username" autoCapitalize="none" spellCheck={false} autoFocus={!username} required withAsterisk={false} />
            <PasswordInput label={t.signIn.password} value={password} onChange={(event) => setPassword(event.currentTarget.value)} autoComplete="current-password" autoFocus={Boolean(username)} required withAsterisk={false} />
          </>
        )}
        {asked && <TextInput label={t.signIn.otp} value={otp} onChange={(event) => setOtp(event.currentTarget.value)} autoComplete="one-time-code" spellCheck={false} autoFocus required withAsterisk={false} />}
        <ProblemAlert error={error} />
        <Button type="submit" loading={busy} fullWidth>{t.signIn.button}</Button>
        {asked && <Button variant="subtle" onClick={() => { setAsked(false); setError(undefined) }}>{t.signIn.back}</Button>}
      </Stack>
    </form>
  )
}

function Redeem({ back, done }: { back: () => void; done: () => void }) {
  const [values, setValues] = useState({ username: '', code: '', new_password: '' })
  const [error, setError] = useState<unknown>()
  const set = (key: keyof typeof values) => (event: { currentTarget: { value: string } }) => setValues({ ...values, [key]: event.currentTarget.value })
  const submit = async (event: FormEvent) => {
    event.preventDefault()
    const answer = await api.POST('/v1/auth/reset_password', { body: values })
    if (answer.response.ok) done()
    else setError(new ApiProblem(answer.error as never))
  }
  return (
    <form onSubmit={(event) => void submit(event)}>
      <Stack>
        <TextInput label={t.signIn.username} value={values.username} onChange={set('username')} autoComplete="username" required withAsterisk={false} />
        <TextInput label={t.signIn.code} value={values.code} onChange={set('code')} autoComplete="off" required withAsterisk={false} />
        <PasswordInput label={t.signIn.newPassword} value={values.new_password} onChange={set('new_password')} autoComplete="new-password" required withAsterisk={false} />
        <ProblemAlert error={error} />
        <Group grow><Button variant="default" onClick={back}>{t.form.cancel}</Button><Button type="submit">{t.signIn.redeemTitle}</Button></Group>
      </Stack>
    </form>
  )
}
