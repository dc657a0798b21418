import { useQuery } from '@tanstack/react-query'
import { call, fill, type Schemas } from '../../api/client'
import { useMe } from '../../app/SessionGate'

/** The address of a question about policies, in a project or in the whole cloud. */
export const pathOf = (project: string | undefined, question: 'who_can' | 'what_can') =>
  project === undefined ? `/v1/policies:${question}` : fill(`/v1/projects/{project}/policies:${question}`, { project })

/** Every action, and whether one may do it oneself: the API's answer, which is written down nowhere. */
export function useCapabilities(project: string | undefined, enabled = true) {
  const me = useMe()
  return useQuery({
    queryKey: [project === undefined ? 'cloud' : 'projects', project, 'actions'],
    queryFn: ({ signal }) => call<Schemas['Capabilities']>('GET', pathOf(project, 'what_can'), { query: { user: me.id }, signal }),
    enabled,
    retry: false,
    staleTime: 300_000,
  })
}
