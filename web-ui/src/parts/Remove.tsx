import { Button, Group, Modal, Stack, Text, TextInput } from '@mantine/core'
import { useState, type ReactNode } from 'react'
import { ProblemAlert } from './ProblemAlert'
import { t } from '../strings'

interface Props {
  /** What goes: one name, or how many. */
  names: string[]
  one: string
  many: string
  opened: boolean
  close: () => void
  remove: () => Promise<void>
  /** Nothing that is lost with it: it is asked for, but not typed. */
  plain?: boolean
  button?: string
  /** What else is to be said or decided. */
  children?: ReactNode
}

/** Asks for the name, or of many for their number, before something goes for good. */
export function Remove(props: Props) {
  return (
    <Modal opened={props.opened} onClose={props.close} title={t.remove.title(props.button ?? t.remove.button, props.names.length <= 1 ? (props.names[0] ?? '') : `${props.names.length} ${props.many.toLowerCase()}`)} centered>
      {props.opened && <Ask {...props} />}
    </Modal>
  )
}

function Ask({ names, close, remove, plain, button, children }: Props) {
  const [typed, setTyped] = useState('')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const wanted = names.length === 1 ? (names[0] ?? '') : String(names.length)
  const sure = plain || typed === wanted
  const submit = async () => {
    setBusy(true)
    setError(undefined)
    try {
      await remove()
      close()
    } catch (problem) {
      setError(problem)
      setBusy(false)
    }
  }
  return (
    <form onSubmit={(event) => { event.preventDefault(); if (sure) void submit() }}>
      <Stack>
        {!plain && <Text size="sm">{t.remove.warning}</Text>}
        {children}
        {names.length > 1 && <Text size="sm" c="dimmed" lineClamp={4}>{names.join(', ')}</Text>}
        {!plain && <TextInput
          data-autofocus
          label={names.length === 1 ? t.remove.typeName(wanted) : t.remove.typeCount(names.length)}
          value={typed}
          onChange={(event) => setTyped(event.currentTarget.value)}
          autoComplete="off"
          spellCheck={false}
        />}
        <ProblemAlert error={error} />
        <Group justify="flex-end">
          <Button variant="default" onClick={close}>{t.form.cancel}</Button>
          <Button type="submit" color="red" disabled={!sure} loading={busy}>{button ?? t.remove.button}</Button>
        </Group>
      </Stack>
    </form>
  )
}
