import { Alert, Badge, Button, Group, Stack, Text, Textarea } from '@mantine/core'
import { useFullscreenElement } from '@mantine/hooks'
import { useRef, useState, type KeyboardEvent, type ReactNode } from 'react'
import { ProblemAlert } from '../../../parts/ProblemAlert'
import { t } from '../../../strings'
import style from './Frame.module.css'
import type { Standing } from './useConsole'

interface Props {
  standing: Standing
  connect: () => void
  /** Sends a text to the guest; says what could not be sent. */
  type: (text: string) => string | undefined
  typeHint: string
  tools?: ReactNode
  /** Said above the screen. */
  notice?: string | undefined
  children: ReactNode
}

/** What is around a console. The keyboard is the guest's while it is inside; Ctrl Alt Shift leads out. */
export function Frame({ standing, connect, type, typeHint, tools, notice, children }: Props) {
  const { ref, toggle, fullscreen } = useFullscreenElement()
  const first = useRef<HTMLButtonElement>(null)
  const [typing, setTyping] = useState(false)
  const leave = (event: KeyboardEvent) => {
    if (event.ctrlKey && event.altKey && event.shiftKey) first.current?.focus()
  }
  const over = standing.is === 'closed' || standing.is === 'refused'
  const colour = { connecting: 'sky', open: 'teal', closed: 'gray', refused: 'red' }[standing.is]
  return (
    <div ref={ref} className={style.frame}>
      <Group gap="xs">
        <Badge variant="dot" color={colour} tt="none" fw={400} role="status">{standing.is === 'refused' ? t.consoles.closed : t.consoles[standing.is]}</Badge>
        {tools}
        <Button ref={first} size="compact-sm" variant="default" aria-expanded={typing} onClick={() => setTyping(!typing)}>{t.consoles.type}</Button>
        <Button size="compact-sm" variant="default" onClick={() => void toggle()}>{fullscreen ? t.consoles.leave : t.consoles.full}</Button>
        {over && <Button size="compact-sm" onClick={connect}>{t.consoles.again}</Button>}
        <Text size="xs" c="dimmed">{t.consoles.release}</Text>
      </Group>
      {standing.is === 'refused' && <ProblemAlert error={standing.error} />}
      {standing.is === 'closed' && <Alert variant="light" color="gray" role="alert">{t.consoles.end(standing.code)}</Alert>}
      {notice && <Alert variant="light" color="orange" role="alert">{notice}</Alert>}
      {typing && <Typing type={type} hint={typeHint} open={standing.is === 'open'} />}
      <div className={style.screen} onKeyDownCapture={leave}>{children}</div>
    </div>
  )
}

function Typing({ type, hint, open }: { type: Props['type']; hint: string; open: boolean }) {
  const [text, setText] = useState('')
  const [said, setSaid] = useState<string | undefined>()
  return (
    <Stack gap={6}>
      <Textarea label={t.consoles.typeLabel} description={hint} error={said} value={text} onChange={(event) => { setSaid(undefined); setText(event.currentTarget.value) }} autosize minRows={2} maxRows={8} spellCheck={false} autoFocus />
      <Group><Button size="compact-sm" disabled={text === '' || !open} onClick={() => { setSaid(type(text)); setText('') }}>{t.consoles.send}</Button></Group>
    </Stack>
  )
}
