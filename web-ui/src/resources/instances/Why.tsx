import { Alert, List, Text } from '@mantine/core'
import type { Schemas } from '../../api/client'
import { exactTime, mebibytes } from '../../parts/format'
import { t } from '../../strings'
import type { Instance } from '.'

/** Says why an instance is not as it was asked for. */
export function Why({ instance }: { instance: Instance }) {
  const { state_reason, state_detail, placement } = instance
  if (state_reason === 'as_requested' && !placement && !instance.resize) return null
  const bad = instance.state === 'error' || ['no_host_fits', 'host_unreachable', 'pool_full', 'io_error'].includes(state_reason)
  return (
    <Alert variant="light" color={bad ? 'orange' : 'gray'} title={`${t.why}: ${t.state(state_reason)}`} role="status">
      {instance.resize && <Text size="sm" component="div">{t.verbs.resizedFrom(instance.resize.from.name)} {exactTime(new Date(instance.resize.confirm_at))}.</Text>}
      {state_detail && <Text size="sm">{state_detail}</Text>}
      {placement && <Placement placement={placement} />}
    </Alert>
  )
}

/** Why no host takes something, and what would fit. */
export function Placement({ placement }: { placement: Schemas['Explanation'] }) {
  const fits = placement.nearest_miss?.would_fit
  return (
    <>
      <Text size="sm">{placement.summary}</Text>
      {placement.rejections.length > 1 && (
        <List size="sm">{placement.rejections.map(({ reason, hosts }) => <List.Item key={reason}>{t.state(reason)}: {hosts}</List.Item>)}</List>
      )}
      {fits && <Text size="sm" c="dimmed">{t.instance.fits(fits.vcpus, mebibytes(fits.memory_mib), fits.disk_gib)}</Text>}
    </>
  )
}
