import { Anchor } from '@mantine/core'
import { Link } from '@tanstack/react-router'
import type { ReactNode } from 'react'
import { t } from '../strings'

interface Props {
  resource: string
  /** Absent: a resource of the cloud. */
  project: string | undefined
  id: string | null | undefined
  children: ReactNode
}

/** Leads to one of a resource. */
export function RowLink({ resource, project, id, children }: Props) {
  if (!id) return <>{t.none}</>
  if (project === undefined) {
    return <Anchor inherit renderRoot={(props) => <Link {...props} to="/cloud/$resource/$id" params={{ resource, id }} />}>{children}</Anchor>
  }
  return <Anchor inherit renderRoot={(props) => <Link {...props} to="/projects/$project/$resource/$id" params={{ project, resource, id }} />}>{children}</Anchor>
}
