import { Badge, Loader } from '@mantine/core'
import { t } from '../strings'

const GOOD = new Set(['running', 'available', 'attached', 'active', 'ready', 'succeeded', 'allowed'])
const BAD = new Set(['error', 'failed', 'unreachable', 'denied', 'explicit_deny', 'implicit_deny', 'fault', 'declared_dead', 'lost'])
const MOVING = new Set([
  'pending', 'provisioning', 'stopping', 'deleting', 'attaching', 'detaching', 'importing', 'uploading', 'creating', 'restoring',
])

export function colourOf(state: string, moving: boolean): string {
  if (GOOD.has(state)) return 'teal'
  if (BAD.has(state)) return 'red'
  return moving ? 'sky' : 'gray'
}

/** A state in its colour and, for those who see none, in words. What goes on turns. */
export function StateBadge({ state, live }: { state: string; live?: boolean }) {
  const moving = live ?? MOVING.has(state)
  const colour = colourOf(state, moving)
  return (
    <Badge
      variant="light"
      color={colour}
      tt="none"
      fw={500}
      radius="sm"
      leftSection={moving ? <Loader size={10} color={colour} aria-hidden /> : <span aria-hidden>●</span>}
    >
      {t.state(state)}
    </Badge>
  )
}
