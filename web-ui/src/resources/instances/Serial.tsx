import { Button, Group, Stack, Text } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useEffect, useRef } from 'react'
import { fill, rawCall } from '../../api/client'
import { consoleText } from '../../parts/format'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { t } from '../../strings'
import type { Instance } from '.'
import style from './Serial.module.css'

const LOOK_MS = 3000

/** What the guest wrote. It is a stranger's text: it is shown as such and steers nothing. */
export function Serial({ instance, project }: { instance: Instance; project: string }) {
  const log = useQuery({
    queryKey: ['projects', project, 'instances', instance.id, 'serial'],
    queryFn: async ({ signal }) => {
      const response = await rawCall('GET', fill('/v1/projects/{project}/instances/{id}/serial', { project, id: instance.id }), { signal })
      return consoleText(await response.text())
    },
    refetchInterval: instance.state === 'running' ? LOOK_MS : false,
  })
  const box = useRef<HTMLPreElement>(null)
  useEffect(() => {
    const element = box.current
    // Whoever has scrolled up reads there.
    if (element && element.scrollHeight - element.scrollTop - element.clientHeight < 200) element.scrollTop = element.scrollHeight
  }, [log.data])
  return (
    <Stack gap="xs">
      <Group justify="space-between">
        <Text size="sm" c="dimmed">{t.instance.serialHint}</Text>
        <Button size="compact-sm" variant="default" onClick={() => void log.refetch()}>{t.retry}</Button>
      </Group>
      <ProblemAlert error={log.error} />
      <pre ref={box} className={style.log} tabIndex={0} aria-label={t.tab('serial')}>{log.data === '' ? t.instance.serialEmpty : log.data}</pre>
    </Stack>
  )
}
