import { Button, Card, Group, Modal, SimpleGrid, Stack, Text, Title } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { api, data, fill } from '../../api/client'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { ResourceForm } from '../../parts/ResourceForm'
import { UsageBar } from '../../parts/UsageBar'
import { formOf } from '../../parts/fields'
import { t } from '../../strings'

export function QuotasPage({ project }: { project: string }) {
  const [opened, setOpened] = useState(false)
  const client = useQueryClient()
  const key = ['projects', project, 'quotas']
  const quotas = useQuery({ queryKey: key, queryFn: () => data(api.GET('/v1/projects/{project}/quotas', { params: { path: { project } } })) })
  const items = quotas.data?.items ?? []
  const initial = Object.fromEntries(items.map(({ resource, limit }) => [resource, limit]))
  return (
    <Stack>
      <Group justify="space-between">
        <Title order={1} size="h2">{t.quota.title}</Title>
        <Button variant="default" onClick={() => setOpened(true)}>{t.quota.change}</Button>
      </Group>
      <ProblemAlert error={quotas.error} retry={() => void quotas.refetch()} />
      <SimpleGrid cols={{ base: 1, sm: 2, lg: 3 }}>
        {items.map(({ resource, used, limit, source }) => (
          <Card withBorder key={resource} padding="md">
            <UsageBar resource={resource} used={used} limit={limit as number | null} />
            <Text size="xs" c="dimmed" mt={6}>{source === 'project' ? t.quota.own : t.quota.standard}</Text>
          </Card>
        ))}
      </SimpleGrid>
      <Modal opened={opened} onClose={() => setOpened(false)} title={t.quota.change} size="lg">
        <ResourceForm
          spec={{ schema: 'UpdateQuotas', fields: Object.keys(formOf('UpdateQuotas').properties), initial }} method="PATCH" path={fill('/v1/projects/{project}/quotas', { project })} project={project} button={t.form.save}
          onDone={() => { setOpened(false); void client.invalidateQueries({ queryKey: key }) }} onCancel={() => setOpened(false)}
        />
      </Modal>
    </Stack>
  )
}
