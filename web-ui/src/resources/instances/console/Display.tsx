import { Button, Menu, Switch } from '@mantine/core'
import RFB from '@novnc/novnc'
import { useRef, useState } from 'react'
import { t } from '../../../strings'
import type { Instance } from '..'
import { Frame } from './Frame'
import style from './Frame.module.css'
import { CHORDS, typed, type Key } from './keys'
import { Typist } from './typist'
import { useConsole } from './useConsole'

function press(display: RFB, keys: readonly Key[]): void {
  for (const [keysym, code] of keys) display.sendKey(keysym, code, true)
  for (const [keysym, code] of keys.toReversed()) display.sendKey(keysym, code, false)
}

/** The display of an instance, with its keyboard and mouse. */
export default function Display({ instance, project }: { instance: Instance; project: string }) {
  const screen = useRef<HTMLDivElement>(null)
  const rfb = useRef<RFB | undefined>(undefined)
  const typist = useRef<Typist | undefined>(undefined)
  const [fit, setFit] = useState(true)
  const fitted = useRef(fit)
  const [cut, setCut] = useState(0)
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
    // Who sits at the next connection's guest, nobody knows: a text is typed into the one that it was meant for.
    const own = new Typist((keys) => press(display, keys))
    typist.current = own
    let over = false
    display.addEventListener('disconnect', () => { over = true })
    return () => {
      rfb.current = undefined
      typist.current = undefined
      const left = own.stop()
      if (left > 0) setCut(left)
      if (!over) display.disconnect()
    }
  })
  const type = (text: string) => {
    const { strokes, missing } = typed(text)
    setCut(0)
    typist.current?.type(strokes)
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
        <Menu.Dropdown>{CHORDS.map(({ name, keys }) => <Menu.Item key={name} onClick={() => rfb.current && press(rfb.current, keys)}>{name}</Menu.Item>)}</Menu.Dropdown>
      </Menu>
      <Switch size="xs" label={t.consoles.fit} checked={fit} onChange={(event) => scale(event.currentTarget.checked)} />
    </>
  )
  return (
    <Frame standing={standing} connect={connect} type={type} typeHint={t.consoles.typeHint} tools={tools} notice={cut > 0 ? t.consoles.cut(cut) : undefined}>
      <div ref={screen} className={style.inside} />
    </Frame>
  )
}
