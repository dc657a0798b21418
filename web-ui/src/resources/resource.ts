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
  /** Said above the fields. */
  hint?: ReactNode
  /** Sent as well. */
  fixed?: Record<string, unknown>
  /** Where it is sent, unless where the list is. */
  path?: Path
  /** On its button, unless it is the usual. */
  label?: string
}

export interface Action<T> {
  /** Its name in the strings and, without a `verb`, in the path: `POST …/{id}/{name}`. */
  name: string
  verb?: string
  form?: FormSpec | ((row: T) => FormSpec)
  /** Where the form is sent, if not to the verb: another path of the project. */
  path?: Path
  /** A dialog of its own. */
  dialog?: (row: T, project: string, done: () => void, close: () => void) => ReactNode
  /** In the menu behind the buttons. */
  menu?: boolean
  /** Offered only for such rows. */
  shown?: (row: T) => boolean
  /** Sent without a form. */
  body?: unknown
  /** Said before it is done; without it, it is done at once. */
  confirm?: (row: T) => string
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
  /** What is said of one that has no name. */
  label?: (row: T) => string
  /** One call for many of them, and the actions that it knows; `delete` is one. */
  bulk?: { path: Path; actions: string[] }
  /** Whether one of them can be opened. */
  openable?: boolean
}
