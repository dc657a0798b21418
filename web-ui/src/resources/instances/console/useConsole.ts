import { useEffect, useRef, useState } from 'react'
import { comesBack, mayPass, openSocket, WAITS_MS, type ConsoleKind } from './ticket'

export type Standing =
  | { is: 'connecting' }
  | { is: 'open' }
  /** It was open, or never came to be; `code` says why. */
  | { is: 'closed'; code: number }
  /** No ticket was given. */
  | { is: 'refused'; error: unknown }

/** As long as that it has to be open for a later break to count as the first one. */
const STEADY_MS = 10_000

/**
 * Keeps a console open: a ticket and a WebSocket, and others after a break. `attach` is given each socket before it
 * opens, and what it returns is called when the socket has closed.
 */
export function useConsole(project: string, instance: string, kind: ConsoleKind, attach: (socket: WebSocket) => () => void) {
  const [standing, setStanding] = useState<Standing>({ is: 'connecting' })
  const [asked, setAsked] = useState(0)
  const attached = useRef(attach)
  attached.current = attach
  useEffect(() => {
    const stop = new AbortController()
    let close = () => {}
    let timer: ReturnType<typeof setTimeout> | undefined
    let failures = 0
    const later = () => {
      const wait = WAITS_MS[failures]
      failures += 1
      if (wait === undefined) return false
      setStanding({ is: 'connecting' })
      timer = setTimeout(() => void connect(), wait)
      return true
    }
    const connect = async () => {
      let socket: WebSocket
      try {
        socket = await openSocket(project, instance, kind, stop.signal)
      } catch (error) {
        if (!stop.signal.aborted && !(mayPass(error, failures) && later())) setStanding({ is: 'refused', error })
        return
      }
      if (stop.signal.aborted) return socket.close()
      let opened = Infinity
      const detach = attached.current(socket)
      socket.addEventListener('open', () => {
        opened = Date.now()
        setStanding({ is: 'open' })
      })
      socket.addEventListener('close', ({ code }) => {
        detach()
        if (stop.signal.aborted) return
        if (Date.now() - opened > STEADY_MS) failures = 0
        if (!(comesBack(code) && later())) setStanding({ is: 'closed', code })
      })
      close = () => {
        detach()
        socket.close()
      }
    }
    setStanding({ is: 'connecting' })
    void connect()
    return () => {
      stop.abort()
      clearTimeout(timer)
      close()
    }
  }, [project, instance, kind, asked])
  return { standing, connect: () => setAsked((before) => before + 1) }
}
