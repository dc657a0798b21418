import { Alert, Box, Card, Code, Group, Loader, Stack, Text, Title } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { call, fill, type Schemas } from '../../api/client'
import { useMe } from '../../app/SessionGate'
import { Copy } from '../../parts/Copy'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { UsageBar } from '../../parts/UsageBar'
import { t } from '../../strings'
import type { Instance } from '.'
import { curlOf } from './request'
import { Placement } from './Why'

interface Props {
  project: string
  request: Schemas['CreateInstance']
  askable: boolean
  planning: boolean
  answer: Instance | undefined
  error: unknown
}

/** What would happen, as the API says, while one types. */
export function Plan({ project, request, askable, planning, answer, error }: Props) {
  const plan = answer?.plan
  const curl = curlOf(location.origin, project, request)
  return (
    <Card withBorder padding="lg" style={{ position: 'sticky', top: 80 }} component="section" aria-label={t.instance.plan}>
      <Stack>
        <Group justify="space-between"><Title order={2} size="h4">{t.instance.plan}</Title>{askable && planning && <Loader size="xs" aria-label={t.instance.planning} />}</Group>
        {!askable && <Text size="sm" c="dimmed">{t.instance.planWait}</Text>}
        {askable && Boolean(error) && <ProblemAlert error={error} />}
        {askable && !error && plan && (
          <Box role="status" opacity={planning ? 0.6 : 1}>
            <Stack>
              <Alert variant="light" color={plan.placeable ? 'teal' : 'orange'} title={plan.placeable ? t.instance.placeable : t.instance.unplaceable}>
                {plan.placement && <Placement placement={plan.placement} />}
              </Alert>
              <Text size="sm">{t.instance.addresses} {answer.nics.flatMap((nic) => nic.addresses.map((address) => `${address} (${nic.network.name})`)).join(', ') || t.instance.noNetwork}</Text>
              <Stack gap="sm">{plan.quota.map((effect) => <UsageBar key={effect.resource} resource={effect.resource} used={effect.used} limit={effect.limit as number | null} after={effect.after} />)}</Stack>
              <AllowedBy project={project} />
            </Stack>
          </Box>
        )}
        <div>
          <Group justify="space-between"><Text size="sm" fw={500}>{t.instance.curl}</Text><Copy text={curl} what={t.instance.curl} /></Group>
          <Code block tabIndex={0} style={{ maxHeight: 220, overflow: 'auto' }}>{curl}</Code>
          <Text size="xs" c="dimmed" mt={4}>{t.instance.curlHint}</Text>
        </div>
      </Stack>
    </Card>
  )
}

/** Which statement allows it, for whoever may ask. */
function AllowedBy({ project }: { project: string }) {
  const me = useMe()
  const answer = useQuery({
    queryKey: ['projects', project, 'allowed'],
    queryFn: () => call<Schemas['Simulation']>('POST', fill('/v1/projects/{project}/policies:simulate', { project }), { body: { user: me.name, action: 'compute:CreateInstance' } }),
    retry: false,
    staleTime: 60_000,
  })
  const statements = answer.data?.results[0]?.statements ?? []
  if (statements.length === 0) return null
  return <Text size="sm" c="dimmed">{t.instance.allowedBy} {statements.map((one) => t.instance.statement(one.policy ?? '?', one.sid ?? `#${one.statement}`)).join(', ')}</Text>
}
