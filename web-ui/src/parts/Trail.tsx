import { Group, Loader, Stack, Text, Timeline } from '@mantine/core'
import type { Schemas } from '../api/client'
import { t } from '../strings'
import { duration } from './format'
import { StateBadge } from './StateBadge'
import { Time } from './Time'

/** An operation step by step, each with how long it took after the one before. */
export function Trail({ operation }: { operation: Schemas['Operation'] }) {
  const { trail, status } = operation
  const goesOn = status === 'running'
  return (
    <Stack gap="md">
      <Group gap="xs">
        <Text fw={600}>{t.field(operation.kind)}</Text>
        <StateBadge state={operation.status} live={goesOn} />
        <Text size="sm" c="dimmed"><Time at={operation.created_at} /></Text>
      </Group>
      <Timeline active={trail.length} bulletSize={14} lineWidth={2}>
        {trail.map((step, index) => {
          const before = trail[index - 1]
          const took = before && new Date(step.at).getTime() - new Date(before.at).getTime()
          return (
            <Timeline.Item key={`${step.step}-${step.at}`} title={<Text size="sm" fw={500}>{t.step(step.step)}</Text>}>
              <Text size="xs" c="dimmed">
                {took === undefined ? <Time at={step.at} /> : `+${duration(took)}`}{step.detail ? ` · ${step.detail}` : ''}
              </Text>
            </Timeline.Item>
          )
        })}
        {goesOn && <Timeline.Item bullet={<Loader size={10} />} title={<Text size="sm" c="dimmed">…</Text>} />}
      </Timeline>
      {operation.error && <Text size="sm" c="red">{t.state(operation.error.code)}{operation.error.detail ? `: ${operation.error.detail}` : ''}</Text>}
    </Stack>
  )
}
