import { keepPreviousData, useQuery, type QueryKey } from '@tanstack/react-query'
import { useId, useRef } from 'react'
import { call } from './client'

interface Question {
  method: 'POST' | 'PATCH'
  path: string
  /** As JSON. */
  body: string
  enabled: boolean
  ifMatch?: string | undefined
  /** What the query is found by, when something changes. */
  key?: QueryKey
  /** Whether the answer to the question before is shown until this one is answered. */
  keep?: boolean
}

/**
 * What the API would answer to a request, of which it stores nothing. A request may hold a password or a key, so it is
 * no part of the query's key, and nothing of it is kept after the form.
 */
export function useDryRun<T>({ method, path, body, enabled, ifMatch, key = ['dry run'], keep }: Question) {
  const form = useId()
  const version = useVersion(`${method} ${path} ${body}`)
  return useQuery<T | null>({
    queryKey: [...key, form, version],
    queryFn: ({ signal }) => call<T>(method, path, { body: JSON.parse(body), dryRun: true, signal, ...(ifMatch && { ifMatch }) }).then((answer) => answer ?? null),
    enabled,
    retry: false,
    staleTime: 5000,
    gcTime: 0,
    ...(keep && { placeholderData: keepPreviousData }),
  })
}

/** A number that grows whenever the value changes. */
function useVersion(value: string): number {
  const seen = useRef({ value, version: 0 })
  if (seen.current.value !== value) seen.current = { value, version: seen.current.version + 1 }
  return seen.current.version
}
