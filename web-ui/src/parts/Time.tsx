import { Text, Tooltip } from '@mantine/core'
import { useEffect, useState } from 'react'
import { ago, exactTime } from './format'

/** How long ago; the exact time with its zone on demand. */
export function Time({ at }: { at: string | null | undefined }) {
  const now = useNow()
  if (!at) return <>—</>
  const date = new Date(at)
  return (
    <Tooltip label={exactTime(date)} events={{ hover: true, focus: true, touch: true }}>
      <Text component="time" dateTime={at} inherit span style={{ whiteSpace: 'nowrap' }}>{ago(date, now)}</Text>
    </Tooltip>
  )
}

const listeners = new Set<(now: Date) => void>()
let timer: ReturnType<typeof setInterval> | undefined

/** One clock for all that shows how long ago something was. */
function useNow(): Date {
  const [now, setNow] = useState(() => new Date())
  useEffect(() => {
    listeners.add(setNow)
    timer ??= setInterval(() => listeners.forEach((tell) => tell(new Date())), 10_000)
    return () => {
      listeners.delete(setNow)
      if (listeners.size === 0) {
        clearInterval(timer)
        timer = undefined
      }
    }
  }, [])
  return now
}
