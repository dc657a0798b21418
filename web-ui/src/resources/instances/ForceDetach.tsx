import { Button, Switch, Text } from '@mantine/core'
import { notifications } from '@mantine/notifications'
import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { call, fill, type Schemas } from '../../api/client'
import { asProblem } from '../../api/problem'
import { useMe } from '../../app/SessionGate'
import { Remove } from '../../parts/Remove'
import { t } from '../../strings'
import { useCapabilities } from '../policies/capabilities'
import type { Instance } from '.'

const pathOf = (instance: Instance, project: string) => fill('/v1/projects/{project}/instances/{id}/force_detach_volume', { project, id: instance.id })

const FORCE = 'compute:ForceDetachVolume'

/**
 * Whether one may take volumes away by force. Only what is attached for the whole cloud counts for it, so nobody else asks;
 * who may not ask finds out when it is done, like whoever may under conditions.
 */
function useMayForce(project: string): boolean {
  const me = useMe()
  const runsTheCloud = me.policies.some((policy) => !policy.project && policy.via !== 'everyone')
  const { data, error } = useCapabilities(project, runsTheCloud)
  if (error) return asProblem(error).status === 403
  return data?.items.some(({ action, prospect }) => action === FORCE && prospect !== 'denied') ?? false
}

/** Takes a volume away from a guest that does not let go of it, for whoever runs the cloud. */
export function ForceDetach({ instance, project, disk }: { instance: Instance; project: string; disk: Schemas['InstanceVolume'] }) {
  const client = useQueryClient()
  const may = useMayForce(project)
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
