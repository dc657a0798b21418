import { Button, Card, Checkbox, Grid, Group, MultiSelect, NumberInput, Select, SimpleGrid, Stack, TagsInput, Text, Textarea, TextInput, Title, UnstyledButton } from '@mantine/core'
import { useDebouncedValue } from '@mantine/hooks'
import { notifications } from '@mantine/notifications'
import { useQuery } from '@tanstack/react-query'
import { useNavigate } from '@tanstack/react-router'
import { useEffect, useMemo, useState, type FormEvent } from 'react'
import { call, fill, type Schemas } from '../../api/client'
import { useDryRun } from '../../api/dryRun'
import { asProblem, fieldErrors } from '../../api/problem'
import { useRows } from '../../api/rows'
import { Crumbs } from '../../app/Crumbs'
import { gibibytes, mebibytes } from '../../parts/format'
import { t } from '../../strings'
import { images } from '../images'
import { instanceTypes } from '../instance_types'
import { keyPairs } from '../key_pairs'
import { networks } from '../networks'
import { placementGroups } from '../placement_groups'
import { pools } from '../pools'
import type { Instance } from '.'
import { Plan } from './Plan'
import { isAskable, nothing, requestOf, type Wishes } from './request'

const NO_NETWORK = '\u0000none'
const DEFAULT_NETWORK = '\u0000default'

export function CreatePage({ project }: { project: string }) {
  const [wishes, setWishes] = useState<Wishes>(nothing)
  const [more, setMore] = useState(false)
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const navigate = useNavigate()
  const path = fill('/v1/projects/{project}/instances', { project })
  const usable = useQuery({ queryKey: ['projects', project, 'images', 'usable'], queryFn: () => call<{ items: Schemas['Image'][] }>('GET', path.replace(/instances$/, 'images'), { query: { visibility: 'all', limit: 500 } }), retry: false })
  const own = useRows<Schemas['Image']>(images, project, usable.isError)
  const types = useRows<Schemas['InstanceType']>(instanceTypes, undefined)
  const nets = useRows<Schemas['Network']>(networks, project)
  const keys = useRows<Schemas['KeyPair']>(keyPairs, project)
  const groups = useRows<Schemas['PlacementGroup']>(placementGroups, project, more)
  const shared = useRows<Schemas['Pool']>(pools, undefined, more)
  const choices = (usable.data?.items ?? own.data ?? []).filter((image) => image.state === 'available')

  const request = useMemo(() => requestOf(wishes), [wishes])
  const [asked] = useDebouncedValue(request, 400)
  const settled = JSON.stringify(asked) === JSON.stringify(request)
  const plan = useDryRun<Instance>({ method: 'POST', path, body: JSON.stringify(asked), enabled: isAskable(wishes) && settled, key: ['projects', project, 'plan'], keep: true })
  const refusal = error ?? (settled ? plan.error : null)
  const said = fieldErrors(refusal ? asProblem(refusal) : undefined)
  const set = <K extends keyof Wishes>(key: K, value: Wishes[K]) => {
    setError(undefined)
    setWishes((before) => ({ ...before, [key]: value }))
  }
  // The only one there is, is the one that is meant.
  useEffect(() => {
    if (!wishes.image && choices.length === 1) set('image', choices[0]?.name ?? '')
    if (!wishes.instance_type && types.data?.length === 1) set('instance_type', types.data[0]?.name ?? '')
  }, [choices.length, types.data, wishes.image, wishes.instance_type])

  const submit = async (event: FormEvent) => {
    event.preventDefault()
    setBusy(true)
    setError(undefined)
    try {
      const made = await call<Instance>('POST', path, { body: request })
      notifications.show({ message: t.instance.created(made.name), color: 'teal' })
      await navigate({ to: '/projects/$project/$resource/$id', params: { project, resource: 'instances', id: made.name } })
    } catch (problem) {
      setError(problem)
      setBusy(false)
    }
  }
  const network = wishes.network === null ? NO_NETWORK : wishes.network || DEFAULT_NETWORK
  return (
    <Stack>
      <Crumbs resource={{ name: 'instances' }} project={project} name={t.instance.title} />
      <Title order={1} size="h2">{t.instance.title}</Title>
      <form onSubmit={(event) => void submit(event)} noValidate>
        <Grid gap="lg">
          <Grid.Col span={{ base: 12, md: 7 }}>
            <Card withBorder padding="lg">
              <Stack>
                <TextInput label={t.instance.name} name="name" value={wishes.name} onChange={(event) => set('name', event.currentTarget.value)} error={said['name']} placeholder="web-1" autoComplete="off" spellCheck={false} autoFocus withAsterisk />
                <Select label={t.field('image')} searchable data={choices.map((image) => ({ value: image.project.name === project || !image.project.name ? image.name : image.id, label: image.name }))} value={wishes.image || null} onChange={(value) => set('image', value ?? '')} error={said['image']} withAsterisk />
                <Types types={types.data ?? []} value={wishes.instance_type} onChange={(value) => set('instance_type', value)} error={said['instance_type']} />
                <Select
                  label={t.instance.where} value={network} error={said['networks']} allowDeselect={false}
                  data={[{ value: DEFAULT_NETWORK, label: t.instance.defaultNetwork }, ...(nets.data ?? []).map(({ name }) => ({ value: name, label: name })), { value: NO_NETWORK, label: t.instance.noNetwork }]}
                  onChange={(value) => set('network', value === NO_NETWORK ? null : value === DEFAULT_NETWORK ? '' : (value ?? ''))}
                />
                {(keys.data ?? []).length > 0 && <MultiSelect label={t.resource('key_pairs').title} data={(keys.data ?? []).map(({ name }) => name)} value={wishes.key_pairs} onChange={(value) => set('key_pairs', value)} error={said['key_pairs']} searchable clearable />}
                <UnstyledButton onClick={() => setMore(!more)} c="dimmed" fz="sm" aria-expanded={more}>{more ? `▾ ${t.form.fewer}` : `▸ ${t.form.more}`}</UnstyledButton>
                {more && (
                  <>
                    <Group grow align="start">
                      <Count label={t.field('vcpus')} hint={t.instance.asTheType} value={wishes.vcpus} onChange={(value) => set('vcpus', value)} error={said['vcpus']} />
                      <Count label={t.field('memory_mib')} hint={t.instance.asTheType} value={wishes.memory_mib} onChange={(value) => set('memory_mib', value)} error={said['memory_mib']} />
                    </Group>
                    <Count label={t.instance.rootDisk} hint={t.instance.asTheType} value={wishes.root_disk_gib} onChange={(value) => set('root_disk_gib', value)} error={said['root_disk_gib']} />
                    <Select label={t.field('placement_group')} data={(groups.data ?? []).map(({ name }) => name)} value={wishes.placement_group || null} onChange={(value) => set('placement_group', value ?? '')} error={said['placement_group']} placeholder={t.form.none} clearable />
                    {(shared.data ?? []).length > 0 && <Select label={t.instance.pool} description={t.instance.poolHint} data={(shared.data ?? []).map(({ name }) => name)} value={wishes.pool || null} onChange={(value) => set('pool', value ?? '')} error={said['root_volume']} placeholder={t.instance.ownDisk} clearable />}
                    {(shared.data ?? []).length > 0 && <Checkbox label={t.instance.restart} description={t.instance.restartHint} checked={wishes.restart} onChange={(event) => set('restart', event.currentTarget.checked)} error={said['on_host_failure']} />}
                    <Textarea label={t.instance.ssh} description={t.instance.sshHint} value={wishes.ssh} onChange={(event) => set('ssh', event.currentTarget.value)} error={said['ssh_authorized_keys']} autosize minRows={2} maxRows={8} spellCheck={false} />
                    <Textarea label={t.instance.userData} description={t.instance.userDataHint} value={wishes.user_data} onChange={(event) => set('user_data', event.currentTarget.value)} error={said['user_data']} autosize minRows={4} maxRows={20} spellCheck={false} styles={{ input: { fontFamily: 'var(--mantine-font-family-monospace)' } }} />
                    <TagsInput label={t.field('labels')} placeholder={t.form.labels} value={wishes.labels} onChange={(value) => set('labels', value)} error={said['labels']} />
                  </>
                )}
                <Group justify="flex-end"><Button type="submit" loading={busy} disabled={!isAskable(wishes)}>{t.instance.button}</Button></Group>
              </Stack>
            </Card>
          </Grid.Col>
          <Grid.Col span={{ base: 12, md: 5 }}>
            <Plan project={project} request={request} askable={isAskable(wishes)} planning={plan.isFetching || !settled} answer={plan.data ?? undefined} error={refusal} />
          </Grid.Col>
        </Grid>
      </form>
    </Stack>
  )
}

function Count({ label, hint, value, onChange, error }: { label: string; hint: string; value: number | undefined; onChange: (value: number | undefined) => void; error: string | undefined }) {
  return <NumberInput label={label} description={hint} min={1} allowDecimal={false} value={value ?? ''} onChange={(next) => onChange(next === '' ? undefined : Number(next))} error={error} />
}

function Types({ types, value, onChange, error }: { types: Schemas['InstanceType'][]; value: string; onChange: (value: string) => void; error: string | undefined }) {
  if (types.length > 12) return <Select label={t.field('instance_type')} searchable data={types.map(({ name }) => name)} value={value || null} onChange={(next) => onChange(next ?? '')} error={error} withAsterisk />
  return (
    <Checkbox.Group label={t.field('instance_type')} value={value ? [value] : []} onChange={(next) => onChange(next.at(-1) ?? '')} error={error} withAsterisk>
      <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="xs" mt={4}>
        {types.map((type) => (
          <Checkbox.Card key={type.id} value={type.name} p="sm" radius="md">
            <Group wrap="nowrap" gap="sm">
              <Checkbox.Indicator radius="xl" />
              <div>
                <Text size="sm" fw={500}>{type.name}</Text>
                <Text size="xs" c="dimmed">{type.vcpus} vCPU · {mebibytes(type.memory_mib)} · {gibibytes(type.root_disk_gib)}</Text>
              </div>
            </Group>
          </Checkbox.Card>
        ))}
      </SimpleGrid>
    </Checkbox.Group>
  )
}
