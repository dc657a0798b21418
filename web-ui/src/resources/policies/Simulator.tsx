import { Autocomplete, Button, Group, Paper, SimpleGrid, Stack, Text, TextInput, Title } from '@mantine/core'
import { useState, type FormEvent } from 'react'
import { call, fill, type Schemas } from '../../api/client'
import { useRows } from '../../api/rows'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { StateBadge } from '../../parts/StateBadge'
import { t } from '../../strings'
import { users } from '../users'

type Result = Schemas['SimulationResult']

/** Asks how a request would be decided, for a user, as if this policy were attached as well. */
export function Simulator({ policy, project }: { policy: Schemas['Policy']; project: string | undefined }) {
  const [values, setValues] = useState({ user: '', action: 'compute:GetInstance', resource: '' })
  const [results, setResults] = useState<Result[]>([])
  const [error, setError] = useState<unknown>()
  const people = useRows(users, undefined)
  const submit = async (event: FormEvent) => {
    event.preventDefault()
    setError(undefined)
    try {
      const path = project === undefined ? '/v1/policies:simulate' : fill('/v1/projects/{project}/policies:simulate', { project })
      const body = { action: values.action.split(/[\s,]+/).filter(Boolean), policies: [policy.document], ...(values.user && { user: values.user }), ...(values.resource && { resource: values.resource }) }
      const answer = await call<Schemas['Simulation']>('POST', path, { body })
      setResults(answer.results)
    } catch (problem) {
      setResults([])
      setError(problem)
    }
  }
  const set = (key: keyof typeof values) => (value: string) => setValues({ ...values, [key]: value })
  return (
    <form onSubmit={(event) => void submit(event)}>
      <Stack>
        <Title order={2} size="h5">{t.policy.simulate}</Title>
        <SimpleGrid cols={{ base: 1, sm: 3 }}>
          <Autocomplete label={t.policy.who} data={(people.data ?? []).map((user) => user.name ?? user.id)} value={values.user} onChange={set('user')} />
          <TextInput label={t.policy.action} value={values.action} onChange={(event) => set('action')(event.currentTarget.value)} required />
          <TextInput label={t.policy.resource} placeholder={t.policy.resourceHint} value={values.resource} onChange={(event) => set('resource')(event.currentTarget.value)} />
        </SimpleGrid>
        <Group><Button type="submit">{t.policy.ask}</Button></Group>
        <ProblemAlert error={error} />
        {results.map((result) => (
          <Paper withBorder p="md" key={result.action + result.resource}>
            <Group><StateBadge state={result.decision} /><Text size="sm" fw={500}>{result.action}</Text><Text size="sm" c="dimmed" style={{ overflowWrap: 'anywhere' }}>{result.resource}</Text></Group>
            {result.statements.map((one, index) => (
              <Text size="sm" key={index}>{one.effect} {t.policy.through} {t.instance.statement(one.policy ?? '?', one.sid ?? `#${one.statement}`)}</Text>
            ))}
          </Paper>
        ))}
      </Stack>
    </form>
  )
}
