import { Badge, Button, Card, Code, Group, List, Stack, Table, Text, TextInput, Title } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { call, fill, type Schemas } from '../api/client'
import { ApiKeys } from '../parts/ApiKeys'
import { Copyable } from '../parts/Copy'
import { ProblemAlert } from '../parts/ProblemAlert'
import { Time } from '../parts/Time'
import { t } from '../strings'
import { PasswordForm } from './PasswordForm'
import { useMe } from './SessionGate'

export function Account() {
  const me = useMe()
  const base = fill('/v1/users/{id}', { id: me.id })
  return (
    <Stack maw={720}>
      <Title order={1} size="h2">{me.name}</Title>
      <Card withBorder component="section">
        <Stack gap="sm">
          <Title order={2} size="h4">{t.password.title}</Title>
          <PasswordForm user={me} />
        </Stack>
      </Card>
      <SecondFactor base={base} />
      <Card withBorder component="section"><ApiKeys path={`${base}/api_keys`} project={undefined} /></Card>
      <Sessions base={base} />
    </Stack>
  )
}

function SecondFactor({ base }: { base: string }) {
  const me = useMe()
  const client = useQueryClient()
  const [enrolment, setEnrolment] = useState<Schemas['TotpEnrolment'] | undefined>()
  const [recovery, setRecovery] = useState<string[]>([])
  const [code, setCode] = useState('')
  const [error, setError] = useState<unknown>()
  const on = me.second_factor.set_up
  const attempt = async (change: () => Promise<void>) => {
    setError(undefined)
    try {
      await change()
      setCode('')
      void client.invalidateQueries({ queryKey: ['me'] })
    } catch (problem) {
      setError(problem)
    }
  }
  const begin = () => attempt(async () => setEnrolment(await call('POST', `${base}/totp`, { body: {} })))
  const confirm = () => attempt(async () => {
    const answer = await call<Schemas['RecoveryCodes']>('POST', `${base}/totp/confirm`, { body: { code } })
    setRecovery(answer.recovery_codes ?? [])
    setEnrolment(undefined)
  })
  const renew = () => attempt(async () => setRecovery((await call<Schemas['RecoveryCodes']>('POST', `${base}/recovery_codes`, { body: { code } })).recovery_codes ?? []))
  const remove = () => attempt(() => call('DELETE', `${base}/totp`, { body: { code } }))
  return (
    <Card withBorder component="section">
      <Stack gap="sm">
        <Title order={2} size="h4">{t.factor.title}</Title>
        <Text size="sm" c="dimmed">{on ? t.factor.on : t.factor.off}</Text>
        {!on && !enrolment && <Group><Button variant="default" onClick={() => void begin()}>{t.factor.begin}</Button></Group>}
        {enrolment && <><Text size="sm">{t.factor.secret}</Text><Copyable text={enrolment.secret ?? ''} what={t.factor.title} /></>}
        {(on || enrolment) && <TextInput label={t.factor.code} value={code} onChange={(event) => setCode(event.currentTarget.value)} autoComplete="one-time-code" w={220} />}
        {enrolment && <Group><Button onClick={() => void confirm()}>{t.factor.confirm}</Button></Group>}
        {on && !enrolment && <Group><Button variant="default" onClick={() => void renew()}>{t.factor.renew}</Button><Button color="red" variant="light" onClick={() => void remove()}>{t.factor.remove}</Button></Group>}
        <ProblemAlert error={error} />
        {recovery.length > 0 && <><Text size="sm" fw={500}>{t.factor.recovery}</Text><List size="sm">{recovery.map((one) => <List.Item key={one}><Code>{one}</Code></List.Item>)}</List></>}
      </Stack>
    </Card>
  )
}

function Sessions({ base }: { base: string }) {
  const client = useQueryClient()
  const sessions = useQuery({ queryKey: ['sessions'], queryFn: () => call<{ items: Schemas['Session'][] }>('GET', `${base}/sessions`) })
  const end = async (path: string) => {
    await call('DELETE', path)
    void client.invalidateQueries({ queryKey: ['sessions'] })
  }
  return (
    <Card withBorder component="section">
      <Stack gap="sm">
        <Group justify="space-between"><Title order={2} size="h4">{t.sessions.title}</Title><Button variant="default" size="compact-sm" onClick={() => void end(`${base}/sessions`)}>{t.sessions.endOthers}</Button></Group>
        <ProblemAlert error={sessions.error} />
        <Table>
          <Table.Tbody>
            {sessions.data?.items.map((session) => (
              <Table.Tr key={session.id}>
                <Table.Td>{session.source_address}{session.current && <Badge ml="xs" variant="light" tt="none">{t.sessions.current}</Badge>}<Text size="xs" c="dimmed" lineClamp={1}>{session.user_agent}</Text></Table.Td>
                <Table.Td><Time at={session.created_at} /></Table.Td>
                <Table.Td ta="right">{!session.current && <Button variant="subtle" size="compact-sm" onClick={() => void end(`${base}/sessions/${session.id}`)}>{t.sessions.end}</Button>}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Stack>
    </Card>
  )
}
