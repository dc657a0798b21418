import { Alert, Center, Loader, SegmentedControl, Stack } from '@mantine/core'
import { lazy, Suspense, useState } from 'react'
import { t } from '../../../strings'
import type { Instance } from '..'
import type { ConsoleKind } from './ticket'

// Neither is loaded before somebody wants it.
const Display = lazy(() => import('./Display'))
const SerialPort = lazy(() => import('./SerialPort'))

/** Display and serial port, of which one is open at a time. */
export function Consoles({ instance, project }: { instance: Instance; project: string }) {
  const [kind, setKind] = useState<ConsoleKind>('vnc')
  const runs = instance.state === 'running' || instance.state === 'paused'
  if (!runs) return <Alert variant="light" color="gray" role="status">{t.consoles.stopped}</Alert>
  return (
    <Stack gap="xs">
      <SegmentedControl
        aria-label={t.consoles.which} value={kind} onChange={(value) => setKind(value as ConsoleKind)} size="xs" maw={300}
        data={(['vnc', 'serial'] as const).map((value) => ({ value, label: t.consoles.kinds[value] }))}
      />
      <Suspense fallback={<Center p="xl"><Loader aria-label={t.table.loading} /></Center>}>
        {kind === 'vnc' ? <Display instance={instance} project={project} /> : <SerialPort instance={instance} project={project} />}
      </Suspense>
    </Stack>
  )
}
