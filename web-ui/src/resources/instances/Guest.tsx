import { Code, Group, Progress, Stack, Text } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { call, fill, type Schemas } from '../../api/client'
import { asProblem } from '../../api/problem'
import { Copy, Copyable } from '../../parts/Copy'
import { Fact, Section } from '../../parts/Facts'
import { bytes, duration } from '../../parts/format'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { Time } from '../../parts/Time'
import { t } from '../../strings'
import { insight } from '../../strings/insight'
import type { Instance } from '.'

type Said = Schemas['InstanceGuest']

const LOOK_MS = 30_000
/** A clock that is further off than that is worth a word. */
const CLOCK_MS = 500

/** What the guest says of itself: strangers' text, which is shown as text. */
export function Guest({ instance, project }: { instance: Instance; project: string }) {
  const guest = useQuery({
    queryKey: ['projects', project, 'instances', instance.id, 'guest'],
    queryFn: ({ signal }) => call<Said>('GET', fill('/v1/projects/{project}/instances/{id}/guest', { project, id: instance.id }), { signal }),
    refetchInterval: LOOK_MS,
  })
  // Whoever may see the instance, but not this, misses nothing of the page.
  if (guest.error && asProblem(guest.error).status === 403) return null
  return (
    <Section title={insight.guest.title}>
      <ProblemAlert error={guest.error} retry={() => void guest.refetch()} />
      {guest.data && <Answer said={guest.data} />}
    </Section>
  )
}

export function Answer({ said }: { said: Said }) {
  const text = insight.guest
  const silent = text.states[said.agent]
  return (
    <>
      {silent && <Text size="sm" role="status">{silent}{said.detail ? ` ${said.detail}` : ''}</Text>}
      {said.agent === 'no_agent' && (
        <Stack gap={4}>
          <Text size="sm" c="dimmed">{text.install}</Text>
          <Group gap={4} wrap="nowrap"><Code style={{ overflowWrap: 'anywhere' }}>{text.command}</Code><Copy text={text.command} what={text.title} /></Group>
        </Stack>
      )}
      {said.os && <Fact name={text.os}>{said.os.pretty_name ?? said.os.name ?? said.os.id ?? t.none}</Fact>}
      {said.os?.kernel_release && <Fact name={text.kernel}>{said.os.kernel_release}</Fact>}
      {said.hostname && <Fact name={text.hostname}>{said.hostname}</Fact>}
      {said.seen_at && (said.time_zone ?? said.clock_offset_ms ?? null) !== null && <Fact name={text.clock}>{[said.time_zone, off(said.clock_offset_ms)].filter(Boolean).join(', ')}</Fact>}
      {said.interfaces.length > 0 && (
        <Fact name={text.addresses}>
          <Stack gap={4}>
            {said.interfaces.map((one) => (
              <Group key={one.name} gap="xs"><Text size="sm" c="dimmed" span>{one.name}</Text>{(one.addresses ?? []).map(({ address, prefix_length }) => <Copyable key={`${address}/${prefix_length}`} text={address} what={t.field('address')} />)}</Group>
            ))}
          </Stack>
        </Fact>
      )}
      {said.filesystems.length > 0 && <Fact name={text.filesystems}><Stack gap="xs" miw={180}>{said.filesystems.map((one) => <FileSystem key={one.mount_point} filesystem={one} />)}</Stack></Fact>}
      {said.seen_at && <Text size="xs" c="dimmed"><Time at={said.seen_at} />. {text.unchecked}</Text>}
    </>
  )
}

function FileSystem({ filesystem: { mount_point, kind, total_bytes, used_bytes } }: { filesystem: Schemas['GuestFilesystem'] }) {
  const share = total_bytes && typeof used_bytes === 'number' ? Math.min(100, (used_bytes / total_bytes) * 100) : undefined
  return (
    <div>
      <Group justify="space-between" gap="xs">
        <Text size="sm" span>{mount_point} <Text size="sm" c="dimmed" span>{kind}</Text></Text>
        {share !== undefined && <Text size="sm" c="dimmed" span>{insight.guest.of(bytes(used_bytes ?? 0), bytes(total_bytes ?? 0))}</Text>}
      </Group>
      {share !== undefined && <Progress value={share} size="sm" color={share > 90 ? 'red' : share > 75 ? 'orange' : 'sky'} aria-hidden />}
    </div>
  )
}

/** How a clock differs from the host's, if that is known. */
function off(ms: number | null | undefined): string | undefined {
  if (ms === null || ms === undefined) return undefined
  if (Math.abs(ms) < CLOCK_MS) return insight.guest.right
  return ms > 0 ? insight.guest.ahead(duration(ms)) : insight.guest.behind(duration(-ms))
}
