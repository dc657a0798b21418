import type { ReactNode } from 'react'
import type { Path } from '../api/client'

/** What every resource of the API has; the rest a resource's own folder knows. */
export interface Row {
  id: string
  name?: string
}

export interface Column<T> {
  /** The field in the API; the same word in the address. */
  key: string
  /** What it is sorted and filtered by. */
  value: (row: T) => string | number
  render?: (row: T, project: string | undefined) => ReactNode
  /** Left out on a phone. */
  wide?: boolean
  align?: 'right'
}

export interface FormSpec {
  /** The schema in the API. */
  schema: string
  /** Which of its fields, in which order. */
  fields: string[]
  /** Fields that name something: of which resource. */
  references?: Record<string, string>
  initial?: Record<string, unknown>
}

export interface Action<T> {
  /** As in the path: `POST …/{id}/{name}`. */
  name: string
  form?: FormSpec
  /** Sent without a form. */
  body?: unknown
  /** Said before it is done; without it, it is done at once. */
  confirm?: string
  /** Why it is not possible now. */
  hindrance?: (row: T) => string | undefined
}

export interface Tab<T> {
  name: string
  render: (row: T, project: string) => ReactNode
}

export interface Resource<T extends Row = any> {
  /** As in the paths of the API, and in ours. */
  name: string
  /** As in events. */
  kind: string
  scope: 'project' | 'cloud'
  path: Path
  columns: Column<T>[]
  /** Newest first, or by name: a column's key, with `-` for descending. */
  sort?: string
  create?: FormSpec | 'page'
  update?: FormSpec
  actions?: Action<T>[]
  tabs?: Tab<T>[]
  /** Above the tabs of one of them. */
  summary?: (row: T, project: string | undefined) => ReactNode
  deletable?: boolean
  /** Whether one of them can be opened. */
  openable?: boolean
}
