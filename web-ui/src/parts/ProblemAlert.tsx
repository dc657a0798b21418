import { Alert, Button, Code, Group, List, Stack, Text } from '@mantine/core'
import { asProblem, type Problem } from '../api/problem'
import { t } from '../strings'
import { Copy } from './Copy'

/** A refusal in the API's own words: which statement denies, which quota is in the way, which field is wrong. */
export function ProblemAlert({ error, retry, hideFields }: { error: unknown; retry?: () => void; hideFields?: boolean }) {
  if (!error) return null
  const problem = asProblem(error)
  const { denial } = problem
  const title = denial ? t.denied.title : problem.title
  return (
    <Alert color={denial ? 'orange' : 'red'} title={title} role="alert" variant="light">
      <Stack gap="xs">
        {problem.detail && <Text size="sm">{problem.detail}</Text>}
        {denial && <DenialText problem={problem} />}
        {problem.quota?.map((limit) => (
          <Text size="sm" key={limit.resource}>{t.quotaWay(limit.resource, Number(limit.limit), limit.used, limit.asked)}</Text>
        ))}
        {!hideFields && problem.errors && problem.errors.length > 0 && (
          <List size="sm">
            {problem.errors.map(({ pointer, message }) => (
              <List.Item key={pointer + message}><Code>{pointer}</Code> {message}</List.Item>
            ))}
          </List>
        )}
        <Group gap="xs">
          {retry && <Button size="compact-sm" variant="default" onClick={retry}>{t.retry}</Button>}
          {problem.request_id && (
            <Text size="xs" c="dimmed">{problem.code} · {t.request} {problem.request_id}</Text>
          )}
        </Group>
      </Stack>
    </Alert>
  )
}

function DenialText({ problem }: { problem: Problem }) {
  const { denial } = problem
  if (!denial) return null
  const by = denial.statements.map((one) => `${one.sid ?? `#${one.statement}`} (${one.policy ?? '?'})`)
  const why = by.length > 0 ? `${t.denied.by} ${by.join(', ')}` : t.denied.none
  const text = `${t.denied.asked} ${denial.action} ${t.denied.on} ${denial.resource}. ${why}`
  return (
    <Stack gap={4}>
      <Text size="sm">{t.denied.asked} <Code>{denial.action}</Code> {t.denied.on} <Code style={{ overflowWrap: 'anywhere' }}>{denial.resource}</Code>.</Text>
      <Text size="sm">{why}</Text>
      <Group gap={4}><Text size="sm" c="dimmed">{t.denied.next}</Text><Copy text={text} what={t.denied.copy} /></Group>
    </Stack>
  )
}
