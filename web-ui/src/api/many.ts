import type { Resource, Row } from '../resources/resource'
import { call, fill, type Schemas } from './client'
import { ApiProblem } from './problem'

/** As many as one call takes. */
const AT_ONCE = 100
/** Calls that are under way at a time, where each row needs its own. */
const TOGETHER = 6

/** Does something to many rows, by one call for each hundred where the API has such a call. The refusals. */
export async function many(resource: Resource, project: string | undefined, rows: Row[], action: string, change: (row: Row) => Promise<unknown>): Promise<unknown[]> {
  const refusals: unknown[] = []
  const { bulk } = resource
  if (bulk?.actions.includes(action)) {
    for (let at = 0; at < rows.length; at += AT_ONCE) {
      const instances = rows.slice(at, at + AT_ONCE).map(({ id }) => id)
      try {
        const answer = await call<Schemas['InstanceActions']>('POST', fill(bulk.path, { project: project ?? '' }), { body: { action, instances } })
        refusals.push(...answer.items.flatMap(({ error }) => (error ? [new ApiProblem({ type: 'about:blank', title: error.code, status: 409, request_id: '', ...error })] : [])))
      } catch (error) {
        // Whoever may not do it to one of them does it to none.
        refusals.push(...instances.map(() => error))
      }
    }
    return refusals
  }
  const left = [...rows]
  const work = async () => {
    for (let row = left.shift(); row; row = left.shift()) await change(row).catch((error: unknown) => refusals.push(error))
  }
  await Promise.all(Array.from({ length: TOGETHER }, work))
  return refusals
}
