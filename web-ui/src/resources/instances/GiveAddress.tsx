import { Button, Group, Select, Stack, Text, TextInput } from '@mantine/core'
import { useState, type FormEvent } from 'react'
import { call, fill, type Schemas } from '../../api/client'
import { useRows } from '../../api/rows'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { t } from '../../strings'
import { addressPools } from '../address_pools'
import { floatingIps } from '../floating_ips'
import type { Instance } from '.'

const FRESH = '\u0000fresh'

/** A public address for an instance: one that the project has and that stands for nothing, or a new one. */
export function GiveAddress({ instance, project, done, close }: { instance: Instance; project: string; done: () => void; close: () => void }) {
  const own = useRows<Schemas['FloatingIp']>(floatingIps, project)
  const pools = useRows<Schemas['AddressPool']>(addressPools, undefined)
  const free = (own.data ?? []).filter((ip) => !ip.port_id)
  const [chosen, setChosen] = useState<string | null>(null)
  const [port, setPort] = useState(instance.nics[0]?.port.id ?? null)
  const [pool, setPool] = useState<string | null>(null)
  const [name, setName] = useState(instance.name)
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const which = chosen ?? free[0]?.id ?? FRESH
  const from = pool ?? pools.data?.[0]?.name ?? null
  const submit = async (event: FormEvent) => {
    event.preventDefault()
    setBusy(true)
    setError(undefined)
    try {
      const path = fill('/v1/projects/{project}/floating_ips', { project })
      const id = which === FRESH ? (await call<Schemas['FloatingIp']>('POST', path, { body: { name, address_pool: from } })).id : which
      // What was taken stays taken if the rest is refused, and is offered the next time.
      setChosen(id)
      void own.refetch()
      await call('POST', `${path}/${id}/associate`, { body: { port } })
      done()
    } catch (problem) {
      setError(problem)
      setBusy(false)
    }
  }
  const text = t.verbs.floating
  if (instance.nics.length === 0) return <Text size="sm">{text.none}</Text>
  return (
    <form onSubmit={(event) => void submit(event)}>
      <Stack>
        <Text size="sm" c="dimmed">{text.hint}</Text>
        <Select label={text.which} allowDeselect={false} value={which} onChange={setChosen} data={[...free.map((ip) => ({ value: ip.id, label: `${ip.name} (${ip.address})` })), { value: FRESH, label: text.fresh }]} data-autofocus />
        {which === FRESH && <TextInput label={text.name} value={name} onChange={(event) => setName(event.currentTarget.value)} spellCheck={false} />}
        {which === FRESH && <Select label={text.pool} allowDeselect={false} value={from} onChange={setPool} data={(pools.data ?? []).map((one) => one.name)} />}
        {instance.nics.length > 1 && <Select label={text.card} allowDeselect={false} value={port} onChange={setPort} data={instance.nics.map((nic) => ({ value: nic.port.id, label: `${nic.network.name}: ${nic.addresses[0] ?? nic.mac}` }))} />}
        <ProblemAlert error={error} />
        <Group justify="flex-end"><Button variant="default" onClick={close}>{t.form.cancel}</Button><Button type="submit" loading={busy} disabled={which === FRESH && !from}>{text.give}</Button></Group>
      </Stack>
    </form>
  )
}
