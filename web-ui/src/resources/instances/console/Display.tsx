import { Button, Menu, Switch } from '@mantine/core'
import RFB from '@novnc/novnc'
import { useRef, useState } from 'react'
import { t } from '../../../strings'
import type { Instance } from '..'
import { Frame } from './Frame'
import style from './Frame.module.css'
import { CHORDS, typed, type Key } from './keys'
import { useConsole } from './useConsole'

/** Between two strokes: a guest's keyboard holds few. */
const STROKE_MS = 12

/** The display of an instance, with its keyboard and mouse. */
export default function Display({ instance, project }: { instance: Instance; project: string }) {
  const screen = useRef<HTMLDivElement>(null)
  const rfb = useRef<RFB | undefined>(undefined)
  const [fit, setFit] = useState(true)
  const fitted = useRef(fit)
  const { standing, connect } = useConsole(project, instance.id, 'vnc', (socket) => {
    if (!screen.current) return () => {}
    const display = new RFB(screen.current, socket, { shared: true })
    display.background = 'transparent'
    display.scaleViewport = fitted.current
    const canvas = screen.current.querySelector('canvas')
    canvas?.setAttribute('aria-label', t.consoles.screen(instance.name))
    canvas?.setAttribute('role', 'application')
    display.addEventListener('connect', () => display.focus())
    rfb.current = display
    let over = false
    display.addEventListener('disconnect', () => { over = true })
    return () => {
      rfb.current = undefined
      if (!over) display.disconnect()
    }
  })
  const press = (keys: readonly Key[]) => {
    for (const [keysym, code] of keys) rfb.current?.sendKey(keysym, code, true)
    for (const [keysym, code] of keys.toReversed()) rfb.current?.sendKey(keysym, code, false)
  }
  const type = (text: string) => {
    const { strokes, missing } = typed(text)
    strokes.forEach((keys, index) => setTimeout(() => press(keys), index * STROKE_MS))
    rfb.current?.focus()
    return missing.length > 0 ? t.consoles.missing(missing.join(' ')) : undefined
  }
  const scale = (on: boolean) => {
    fitted.current = on
    setFit(on)
    if (rfb.current) rfb.current.scaleViewport = on
  }
  const tools = (
    <>
      <Menu withinPortal={false} position="bottom-start">
        <Menu.Target><Button size="compact-sm" variant="default" disabled={standing.is !== 'open'}>{t.consoles.keys}</Button></Menu.Target>
        <Menu.Dropdown>{CHORDS.map(({ name, keys }) => <Menu.Item key={name} onClick={() => press(keys)}>{name}</Menu.Item>)}</Menu.Dropdown>
      </Menu>
      <Switch size="xs" label={t.consoles.fit} checked={fit} onChange={(event) => scale(event.currentTarget.checked)} />
    </>
  )
  return (
    <Frame standing={standing} connect={connect} type={type} typeHint={t.consoles.typeHint} tools={tools}>
      <div ref={screen} className={style.inside} />
    </Frame>
  )
}
