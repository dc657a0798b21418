import { Code, Group, Stack, Text } from '@mantine/core'
import { t } from '../strings'
import { amount, bytes } from './format'
import { Time } from './Time'

/** A value of the API, as people read it. Whatever it is, it is shown as text. */
export function Values({ name, value }: { name: string; value: unknown }) {
  if (value === null || value === undefined || value === '') return <Text size="sm" c="dimmed" span>{t.none}</Text>
  if (typeof value === 'boolean') return <>{value ? t.yes : t.no}</>
  if (typeof value === 'number') return <>{name.endsWith('_bytes') ? bytes(value) : amount(name, value)}</>
  if (typeof value === 'string') return name.endsWith('_at') || name === 'at' ? <Time at={value} /> : <>{value}</>
  if (Array.isArray(value)) {
    if (value.length === 0) return <Text size="sm" c="dimmed" span>{t.none}</Text>
    return <Stack gap={4}>{value.map((one, index) => <div key={index}><Values name={name} value={one} /></div>)}</Stack>
  }
  const entries = Object.entries(value)
  if (entries.length === 0) return <Text size="sm" c="dimmed" span>{t.none}</Text>
  const reference = value as { id?: string; name?: string }
  if (reference.name && reference.id && entries.length <= 3) return <>{reference.name}</>
  return (
    <Group gap="xs">
      {entries.filter(([, part]) => part !== null).map(([key, part]) => (
        <Text size="sm" span key={key}><Text c="dimmed" span>{name === 'labels' ? key : t.field(key).toLowerCase()}</Text> {typeof part === 'object' ? <Code>{JSON.stringify(part)}</Code> : <Values name={key} value={part} />}</Text>
      ))}
    </Group>
  )
}
