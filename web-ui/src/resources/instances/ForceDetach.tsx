import { Button, Switch, Text } from '@mantine/core'
import { notifications } from '@mantine/notifications'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { call, fill, type Schemas } from '../../api/client'
import { asProblem } from '../../api/problem'
import { useMe } from '../../app/SessionGate'
import { Remove } from '../../parts/Remove'
import { t } from '../../strings'
import type { Instance } from '.'

const pathOf = (instance: Instance, project: string) => fill('/v1/projects/{project}/instances/{id}/force_detach_volume', { project, id: instance.id })

/**
 * Whether one may take volumes away by force. Only what is attached for the whole cloud counts for it, so nobody else asks;
 * whatever the API has against it otherwise is said when it is done.
 */
function useMayForce(instance: Instance, project: string): boolean {
  const me = useMe()
  const volume = instance.volumes[0]?.volume.id
  const runsTheCloud = me.policies.some((policy) => !policy.project && policy.via !== 'everyone')
  const answer = useQuery({
    queryKey: ['may', 'force_detach_volume', project],
    queryFn: ({ signal }) =>
      call('POST', pathOf(instance, project), { body: { volume, stop_instance: true }, dryRun: true, signal }).then(() => true, (error: unknown) => ![0, 403].includes(asProblem(error).status)),
    enabled: runsTheCloud && volume !== undefined,
    staleTime: 300_000,
  })
  return answer.data ?? false
}

/** Takes a volume away from a guest that does not let go of it, for whoever runs the cloud. */
export function ForceDetach({ instance, project, disk }: { instance: Instance; project: string; disk: Schemas['InstanceVolume'] }) {
  const client = useQueryClient()
  const may = useMayForce(instance, project)
  const [asking, setAsking] = useState(false)
  const [cutOff, setCutOff] = useState(false)
  if (!may) return null
  const text = t.verbs.forceDetach
  const detach = async () => {
    await call('POST', pathOf(instance, project), { body: { volume: disk.volume.id, stop_instance: cutOff } })
    void client.invalidateQueries({ queryKey: ['projects', project] })
    notifications.show({ message: t.done(text.button, disk.volume.name), color: 'teal' })
  }
  return (
    <>
      <Button size="compact-xs" variant="subtle" color="red" aria-label={`${text.button}: ${disk.volume.name}`} onClick={() => { setCutOff(false); setAsking(true) }}>{text.button}</Button>
      <Remove names={[disk.volume.name]} one={t.resource('volumes').one} many={t.resource('volumes').title} opened={asking} close={() => setAsking(false)} button={text.button} remove={detach}>
        <Text size="sm">{text.hint(instance.name)}</Text>
        <Switch label={text.cutOff} description={text.cutOffHint} checked={cutOff} onChange={(event) => setCutOff(event.currentTarget.checked)} />
      </Remove>
    </>
  )
}
