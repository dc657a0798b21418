// Columns that many lists have.
import { Text } from '@mantine/core'
import { RowLink } from '../parts/RowLink'
import { StateBadge } from '../parts/StateBadge'
import { Time } from '../parts/Time'
import { amount, bytes } from '../parts/format'
import { t } from '../strings'
import type { Column, Row } from './resource'

/** The name, which leads to it. */
export function nameOf<T extends Row>(resource: string): Column<T> {
  return {
    key: 'name',
    value: (row) => row.name ?? row.id,
    render: (row, project) => <Text fw={500} size="sm" span truncate><RowLink resource={resource} project={project} id={row.id}>{row.name ?? row.id}</RowLink></Text>,
  }
}

export function state<T extends Row>(value: (row: T) => string, key = 'state'): Column<T> {
  return { key, value, render: (row) => <StateBadge state={value(row)} /> }
}

export function time<T extends Row>(key: string, value: (row: T) => string | null | undefined): Column<T> {
  return { key, value: (row) => value(row) ?? '', render: (row) => <Time at={value(row)} />, wide: true }
}

export function text<T extends Row>(key: string, value: (row: T) => string | number | null | undefined, wide = true): Column<T> {
  return { key, value: (row) => value(row) ?? '', render: (row) => value(row) || t.none, wide }
}

/** A number with its unit, by the field's name. */
export function size<T extends Row>(key: string, value: (row: T) => number | null | undefined): Column<T> {
  const words = (number: number) => (key.endsWith('_bytes') ? bytes(number) : amount(key, number))
  return {
    key, value: (row) => value(row) ?? -1, wide: true, align: 'right',
    render: (row) => { const number = value(row); return number === null || number === undefined ? t.none : words(number) },
  }
}

export function flag<T extends Row>(key: string, value: (row: T) => boolean): Column<T> {
  return { key, value: (row) => (value(row) ? t.yes : t.no), wide: true }
}

/** Labels as `key=value`, to be filtered by. */
export function labels<T extends Row & { labels: Record<string, string> }>(): Column<T> {
  return text('labels', (row) => Object.entries(row.labels).map(([key, value]) => `${key}=${value}`).join(', '))
}
