import { Paper, Text } from '@mantine/core'
import { insight } from '../../../strings/insight'
import { Load } from '.'
import type { Part } from './series'

interface Props {
  /** What has it. */
  instance: { id: string; name: string } | undefined
  project: string
  part: Part
  name: string
}

/** What passes through a disk or a card, as the host of its instance measures it. */
export function PartLoad({ instance, project, part, name }: Props) {
  if (instance) return <Load key={instance.id} instance={instance} project={project} part={part} name={name} />
  return (
    <Paper withBorder p="xl" ta="center">
      <Text fw={600}>{insight.empty.title}</Text>
      <Text c="dimmed" size="sm" mt="xs">{insight.unattached}</Text>
    </Paper>
  )
}
