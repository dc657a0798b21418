import { useQuery } from '@tanstack/react-query'
import { call, fill, type Schemas } from '../../api/client'

export type Event = Schemas['Event']

const NEWEST = 500

/** The newest events of a project, or of the cloud, newest first. */
export function useEvents(project: string | undefined) {
  return useQuery({
    queryKey: [project ? 'projects' : 'cloud', project, 'events'],
    queryFn: async ({ signal }) => {
      const path = project ? fill('/v1/projects/{project}/events', { project }) : '/v1/events'
      const { head } = await call<Schemas['EventPage']>('GET', path, { query: { limit: 1 }, signal })
      const page = await call<Schemas['EventPage']>('GET', path, { query: { limit: NEWEST, after: Math.max(0, head - NEWEST) }, signal })
      return page.items.toReversed()
    },
  })
}
