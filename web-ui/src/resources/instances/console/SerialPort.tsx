import '@xterm/xterm/css/xterm.css'
import { FitAddon } from '@xterm/addon-fit'
import { Terminal } from '@xterm/xterm'
import { useEffect, useRef } from 'react'
import { fill, rawCall } from '../../../api/client'
import { t } from '../../../strings'
import type { Instance } from '..'
import { Frame } from './Frame'
import style from './Frame.module.css'
import { before } from './history'
import { useConsole } from './useConsole'

/** Back to plain text on the first screen, whatever was written before. */
const SOBER = '\u001b[!p\u001b[?1047l\u001b[?25h\u001b[0m'

/** The serial port of an instance: what it wrote before, and then what it writes. */
export default function SerialPort({ instance, project }: { instance: Instance; project: string }) {
  const box = useRef<HTMLDivElement>(null)
  const terminal = useRef<Terminal | undefined>(undefined)
  const told = useRef(false)
  useEffect(() => {
    if (!box.current) return
    const made = new Terminal({
      scrollback: 10_000, fontSize: 13, minimumContrastRatio: 4.5, fontFamily: getComputedStyle(document.body).getPropertyValue('--mantine-font-family-monospace'),
      theme: { background: '#101418', foreground: '#e6e9ec' },
      // A guest's links lead nowhere.
      linkHandler: { activate: () => {} },
    })
    const fit = new FitAddon()
    made.loadAddon(fit)
    made.open(box.current)
    made.textarea?.setAttribute('aria-label', t.consoles.terminal(instance.name))
    const watch = new ResizeObserver(() => fit.fit())
    watch.observe(box.current)
    terminal.current = made
    told.current = false
    return () => {
      watch.disconnect()
      made.dispose()
      terminal.current = undefined
    }
  }, [instance.id])
  const { standing, connect } = useConsole(project, instance.id, 'serial', (socket) => {
    const path = fill('/v1/projects/{project}/instances/{id}/serial', { project, id: instance.id })
    const waiting: Uint8Array[] = []
    let live = false
    const tell = async () => {
      // After a break the terminal has it already.
      const log = told.current ? undefined : await rawCall('GET', path).then((answer) => answer.arrayBuffer()).catch(() => null)
      const made = terminal.current
      if (!made) return
      const first = joined(waiting)
      if (log) made.write(before(new Uint8Array(log), first))
      const words = log === null ? `${t.consoles.noHistory}; ${t.consoles.live}` : t.consoles.live
      // What asks a terminal for an answer asked it long ago: until all of that is read, nothing is sent.
      made.write(`${SOBER}\r\n\u001b[2m── ${words} ──\u001b[0m\r\n`, () => {
        live = true
        told.current = true
        const since = joined(waiting)
        if (since.length > 0) made.write(since)
        made.focus()
      })
    }
    const typing = terminal.current?.onData((text) => {
      if (live && socket.readyState === WebSocket.OPEN) socket.send(new TextEncoder().encode(text))
    })
    socket.addEventListener('open', () => void tell())
    socket.addEventListener('message', ({ data }: MessageEvent<ArrayBuffer | string>) => {
      const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : new Uint8Array(data)
      if (live) terminal.current?.write(bytes)
      else waiting.push(bytes)
    })
    return () => typing?.dispose()
  })
  const type = (text: string) => {
    terminal.current?.paste(text)
    terminal.current?.focus()
    return undefined
  }
  return (
    <Frame standing={standing} connect={connect} type={type} typeHint={t.consoles.pasteHint}>
      <div ref={box} className={`${style.inside} ${style.terminal}`} />
    </Frame>
  )
}

function joined(pieces: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const piece of pieces) {
    all.set(piece, at)
    at += piece.length
  }
  return all
}
