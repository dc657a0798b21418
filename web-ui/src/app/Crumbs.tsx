import { Anchor, Breadcrumbs, Text } from '@mantine/core'
import { Link } from '@tanstack/react-router'
import type { Resource } from '../resources/resource'
import { t } from '../strings'

export function Crumbs({ resource, project, name }: { resource: Pick<Resource, 'name'>; project: string | undefined; name: string }) {
  const title = t.resource(resource.name).title
  return (
    <Breadcrumbs component="nav" aria-label="Breadcrumb">
      {project === undefined ? (
        <Anchor size="sm" renderRoot={(props) => <Link {...props} to="/cloud/$resource" params={{ resource: resource.name }} />}>{title}</Anchor>
      ) : (
        <Anchor size="sm" renderRoot={(props) => <Link {...props} to="/projects/$project/$resource" params={{ project, resource: resource.name }} />}>{title}</Anchor>
      )}
      <Text size="sm" c="dimmed" truncate maw="50vw">{name}</Text>
    </Breadcrumbs>
  )
}
