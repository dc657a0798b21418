import { Autocomplete, Paper, SimpleGrid, Stack, Table, Text, TextInput } from '@mantine/core'
import { useDebouncedValue } from '@mantine/hooks'
import { useQuery } from '@tanstack/react-query'
import { useState } from 'react'
import type { Schemas } from '../../api/client'
import { allRows } from '../../api/rows'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { StateBadge } from '../../parts/StateBadge'
import { t } from '../../strings'
import { pathOf, useCapabilities } from './capabilities'

type Candidate = Schemas['Candidate']

interface Props {
  project: string | undefined
  /** What it would be done to, such as `instance/web`; without it, one says so oneself. */
  of?: string
}

/** Says who may do something to one thing, or to all of a kind, and which statements allow it. */
export function WhoCan({ project, of }: Props) {
  const { actions, error } = useActions(project, of?.split('/')[0])
  const [chosen, setChosen] = useState<string | undefined>()
  const [about, setAbout] = useState('')
  const action = chosen ?? (of ? (actions.find((one) => one.includes(':Delete')) ?? actions[0] ?? '') : '')
  const [asked] = useDebouncedValue(JSON.stringify({ action: action.trim(), resource: of ?? (about.trim() || undefined) }), 300)
  const query = JSON.parse(asked) as { action: string; resource?: string }
  const complete = /^[a-z]+:\w+$/.test(query.action)
  const answer = useQuery({
    queryKey: [project === undefined ? 'cloud' : 'projects', project, 'policies', 'who can', query],
    queryFn: ({ signal }) => allRows<Candidate>(pathOf(project, 'who_can'), signal, { ...query }),
    enabled: complete,
    retry: false,
  })
  return (
    <Stack>
      <Text size="sm" c="dimmed">{t.whoCan.hint}</Text>
      <SimpleGrid cols={{ base: 1, sm: of ? 2 : 3 }}>
        <Autocomplete label={t.policy.action} data={actions} value={action} onChange={setChosen} limit={60} maxDropdownHeight={280} placeholder="compute:DeleteInstance" spellCheck={false} />
        {!of && <TextInput label={t.policy.resource} placeholder={t.whoCan.all} value={about} onChange={(event) => setAbout(event.currentTarget.value)} spellCheck={false} />}
      </SimpleGrid>
      <ProblemAlert error={complete ? answer.error : error} />
      {complete && answer.data && <Answer candidates={answer.data} action={query.action} />}
    </Stack>
  )
}

function Answer({ candidates, action }: { candidates: Candidate[]; action: string }) {
  if (candidates.length === 0) return <Text size="sm" role="status">{t.whoCan.nobody(action)}</Text>
  return (
    <Paper withBorder style={{ overflowX: 'auto' }} tabIndex={0} role="region" aria-label={t.tab('who_can')}>
      <Table>
        <Table.Thead><Table.Tr><Table.Th>{t.whoCan.who}</Table.Th><Table.Th>{t.whoCan.may}</Table.Th><Table.Th>{t.whoCan.by}</Table.Th></Table.Tr></Table.Thead>
        <Table.Tbody>
          {candidates.map(({ subject, prospect, statements }) => (
            <Table.Tr key={subject.id ?? subject.kind}>
              <Table.Td>{subject.name ?? t.attachments.everyone} <Text size="sm" c="dimmed" span>{t.state(subject.kind)}</Text></Table.Td>
              <Table.Td><StateBadge state={prospect} /></Table.Td>
              <Table.Td>{statements.map((one, index) => <Text size="sm" key={index}>{one.effect} {t.policy.through} {t.instance.statement(one.policy ?? '?', one.sid ?? `#${one.statement}`)}</Text>)}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Paper>
  )
}

/** Every action of a type of resource, or all there are. */
function useActions(project: string | undefined, type: string | undefined): { actions: string[]; error: unknown } {
  const all = useCapabilities(project)
  const actions = (all.data?.items ?? []).filter(({ resource }) => !type || resource.split(':').at(-1)?.startsWith(`${type}/`)).map(({ action }) => action)
  return { actions, error: all.error }
}
