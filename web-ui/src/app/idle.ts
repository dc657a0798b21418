import { useEffect } from 'react'

/** After that long without a sign of life, in any page of this browser, the user is signed out. */
export const IDLE_MS = 30 * 60_000
const LOOK_MS = 15_000
const SEEN = 'cumulo.seen'
const SIGNS = ['pointerdown', 'keydown', 'wheel', 'touchstart'] as const

/** Whether somebody who was last seen then is away. */
export function isIdle(seen: number, now: number): boolean {
  return now - seen >= IDLE_MS
}

/** Calls once when nobody has been seen for long. Pages tell each other; a computer that slept has been away, too. */
export function useIdle(active: boolean, onIdle: () => void): void {
  useEffect(() => {
    if (!active) return
    const see = () => localStorage.setItem(SEEN, String(Date.now()))
    const before = Number(localStorage.getItem(SEEN) ?? Date.now())
    if (isIdle(before, Date.now())) {
      see()
      onIdle()
      return
    }
    see()
    let last = Date.now()
    const sign = () => {
      if (Date.now() - last < 1000) return
      last = Date.now()
      if (!isIdle(Number(localStorage.getItem(SEEN)), last)) see()
    }
    const timer = setInterval(() => {
      if (isIdle(Number(localStorage.getItem(SEEN)), Date.now())) {
        clearInterval(timer)
        onIdle()
      }
    }, LOOK_MS)
    // On the way down: a console keeps what is typed into it to itself.
    for (const name of SIGNS) addEventListener(name, sign, { passive: true, capture: true })
    return () => {
      clearInterval(timer)
      for (const name of SIGNS) removeEventListener(name, sign, { capture: true })
    }
  }, [active, onIdle])
}
