import { Button, Group, Stack, Text, TextInput } from '@mantine/core'
import { useState, type FormEvent } from 'react'
import { call, fill } from '../../api/client'
import { fieldErrors, asProblem } from '../../api/problem'
import { localTime } from '../../parts/format'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { t } from '../../strings'
import type { Instance } from '.'

/** Until when an instance is wanted: when it is stopped, and when it is deleted. */
export function LeaseForm({ instance, project, done, close }: { instance: Instance; project: string; done: () => void; close: () => void }) {
  const [stop, setStop] = useState(localTime(instance.lease?.stop_at))
  const [remove, setRemove] = useState(localTime(instance.lease?.delete_at))
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const said = fieldErrors(error ? asProblem(error) : undefined)
  const set = async (lease: object | null) => {
    setBusy(true)
    setError(undefined)
    try {
      await call('PATCH', fill('/v1/projects/{project}/instances/{id}', { project, id: instance.id }), { body: { lease } })
      done()
    } catch (problem) {
      setError(problem)
      setBusy(false)
    }
  }
  const submit = (event: FormEvent) => {
    event.preventDefault()
    const time = (text: string) => (text ? new Date(text).toISOString() : null)
    void set(stop || remove ? { stop_at: time(stop), delete_at: time(remove) } : null)
  }
  return (
    <form onSubmit={submit}>
      <Stack>
        <Text size="sm" c="dimmed">{t.verbs.lease.hint}</Text>
        <TextInput type="datetime-local" label={t.verbs.lease.stop} value={stop} onChange={(event) => setStop(event.currentTarget.value)} data-autofocus />
        <TextInput type="datetime-local" label={t.verbs.lease.remove} value={remove} onChange={(event) => setRemove(event.currentTarget.value)} />
        {Boolean(error) && <ProblemAlert error={error} hideFields={Object.keys(said).length === 0} />}
        <Group justify="flex-end">
          {instance.lease && <Button variant="light" color="red" onClick={() => void set(null)}>{t.verbs.lease.none}</Button>}
          <Button variant="default" onClick={close}>{t.form.cancel}</Button>
          <Button type="submit" loading={busy}>{t.verbs.lease.save}</Button>
        </Group>
      </Stack>
    </form>
  )
}
