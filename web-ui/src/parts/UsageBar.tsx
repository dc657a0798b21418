import { Group, Progress, Text } from '@mantine/core'
import { t } from '../strings'
import { amount } from './format'

/** How much of a limit is used and, lighter, what would be added. Unlimited is drawn as an empty bar. */
export function UsageBar({ resource, used, limit, after }: { resource: string; used: number; limit: number | null; after?: number }) {
  const end = after ?? used
  const share = (value: number) => (limit === null || limit === 0 ? (value > 0 && limit === 0 ? 100 : 0) : Math.min(100, (value / limit) * 100))
  const over = limit !== null && end > limit
  const colour = over ? 'red' : limit !== null && end / limit > 0.85 ? 'orange' : 'sky'
  const text = t.quota.used(after === undefined || after === used ? amount(resource, used) : `${amount(resource, used)} → ${amount(resource, after)}`, limit === null ? '∞' : amount(resource, limit))
  return (
    <div>
      <Group justify="space-between" gap="xs" mb={4}>
        <Text size="sm">{t.field(resource)}</Text>
        <Text size="sm" c={over ? 'red' : 'dimmed'}>{text}</Text>
      </Group>
      <Progress.Root size="sm" aria-hidden>
        <Progress.Section value={share(Math.min(used, end))} color={colour} withAria={false} />
        {after !== undefined && after > used && (
          <Progress.Section value={share(end) - share(used)} color={colour} opacity={0.5} striped withAria={false} />
        )}
      </Progress.Root>
    </div>
  )
}
