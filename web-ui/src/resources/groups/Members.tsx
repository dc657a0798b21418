import { Autocomplete, Button, Group, Stack } from '@mantine/core'
import { useState } from 'react'
import { call, fill, type Schemas } from '../../api/client'
import { useRows } from '../../api/rows'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { SubList } from '../../parts/SubList'
import { Time } from '../../parts/Time'
import { t } from '../../strings'
import { users } from '../users'

type Member = Schemas['GroupMember']

export function Members({ group }: { group: Schemas['Group'] }) {
  const path = fill('/v1/groups/{group}/members', { group: group.id })
  return (
    <SubList<Member>
      title={t.members.title} empty={t.members.none} path={path} queryKey={['cloud', 'groups', group.id, 'members']} project={undefined}
      columns={[{ key: 'user_name', render: (row) => row.user_name }, { key: 'added_at', render: (row) => <Time at={row.added_at} /> }]}
      id={(row) => row.user_id} name={(row) => row.user_name} removeLabel={t.members.remove}
      adder={(done) => <Add path={path} done={done} />}
    />
  )
}

function Add({ path, done }: { path: string; done: () => void }) {
  const people = useRows<Schemas['User']>(users, undefined)
  const [name, setName] = useState('')
  const [error, setError] = useState<unknown>()
  const add = async () => {
    setError(undefined)
    try {
      await call('PUT', `${path}/${encodeURIComponent(name)}`)
      setName('')
      done()
    } catch (problem) {
      setError(problem)
    }
  }
  return (
    <form onSubmit={(event) => { event.preventDefault(); if (name) void add() }}>
      <Stack gap="xs">
        <Group gap="xs" align="flex-end">
          <Autocomplete size="xs" label={t.members.who} data={(people.data ?? []).map((user) => user.name)} value={name} onChange={setName} spellCheck={false} />
          <Button size="xs" type="submit" variant="default" disabled={!name}>{t.members.add}</Button>
        </Group>
        <ProblemAlert error={error} />
      </Stack>
    </form>
  )
}
