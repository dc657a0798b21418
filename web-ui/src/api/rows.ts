import { useQuery, type QueryClient } from '@tanstack/react-query'
import { call, fill } from './client'
import type { Resource, Row } from '../resources/resource'

/** More than that no list shows: whoever has more, filters on the server. */
const MAX_ROWS = 20_000
const PAGE = 500

interface Page<T> {
  items: T[]
  next_cursor?: string | null
}

export function rowsKey(resource: { name: string; scope: string }, project: string | undefined) {
  return resource.scope === 'cloud' ? ['cloud', resource.name] : ['projects', project, resource.name]
}

export function rowKey(resource: { name: string; scope: string }, project: string | undefined, id: string) {
  return [...rowsKey(resource, project), id]
}

export function listPath(resource: Resource, project: string | undefined): string {
  return fill(resource.path, { project: project ?? '' })
}

/** Every page of a list, one after the other. */
export async function allRows<T>(path: string, signal?: AbortSignal, query: Record<string, string | undefined> = {}): Promise<T[]> {
  const rows: T[] = []
  let cursor: string | undefined
  do {
    const page = await call<Page<T>>('GET', path, { query: { ...query, limit: PAGE, cursor }, signal })
    rows.push(...page.items)
    cursor = page.next_cursor ?? undefined
  } while (cursor && rows.length < MAX_ROWS)
  return rows
}

export function useRows<T extends Row>(resource: Resource, project: string | undefined, enabled = true) {
  return useQuery({
    queryKey: rowsKey(resource, project),
    queryFn: ({ signal }) => allRows<T>(listPath(resource, project), signal),
    enabled,
  })
}

export function useRow<T extends Row>(resource: Resource, project: string | undefined, id: string) {
  return useQuery({
    queryKey: rowKey(resource, project, id),
    queryFn: ({ signal }) => call<T>('GET', `${listPath(resource, project)}/${encodeURIComponent(id)}`, { signal }),
  })
}

/** Puts a row that has changed into what is shown; without a row, takes it away. */
export function patchRows(
  client: QueryClient,
  key: readonly unknown[],
  id: string,
  row: Row | undefined,
): void {
  client.setQueryData<Row[]>(key, (rows) => rows && replaced(rows, id, row))
}

export function replaced(rows: Row[], id: string, row: Row | undefined): Row[] {
  const at = rows.findIndex((one) => one.id === id)
  if (!row) return at < 0 ? rows : rows.toSpliced(at, 1)
  return at < 0 ? [...rows, row] : rows.with(at, row)
}
