import { Button, Group, Stack, Text } from '@mantine/core'
import { useState } from 'react'
import { t } from '../strings'
import { ProblemAlert } from './ProblemAlert'

interface Props {
  /** What it does. */
  text: string
  button: string
  run: () => Promise<void>
  done: () => void
  close: () => void
}

/** Says what something does before it is done. */
export function Confirm({ text, button, run, done, close }: Props) {
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const submit = async () => {
    setBusy(true)
    setError(undefined)
    try {
      await run()
      done()
    } catch (problem) {
      setError(problem)
      setBusy(false)
    }
  }
  return (
    <Stack>
      <Text size="sm">{text}</Text>
      <ProblemAlert error={error} />
      <Group justify="flex-end"><Button variant="default" onClick={close} data-autofocus>{t.form.cancel}</Button><Button loading={busy} onClick={() => void submit()}>{button}</Button></Group>
    </Stack>
  )
}
