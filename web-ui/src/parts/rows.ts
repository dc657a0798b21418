// What a list shows of its rows: the address says which and in which order.
import type { Column, Row } from '../resources/resource'

/** Rows in which every word of the filter occurs, whatever column; `state:running` looks into one. */
export function filtered<T extends Row>(rows: T[], columns: Column<T>[], filter: string): T[] {
  const wanted = filter.toLowerCase().split(/\s+/).filter(Boolean)
  if (wanted.length === 0) return rows
  return rows.filter((row) => {
    const texts = columns.map((column) => [column.key, String(column.value(row)).toLowerCase()] as const)
    return wanted.every((word) => {
      const [key, value] = word.split(/:(.*)/s)
      const column = value === undefined ? undefined : texts.find(([name]) => name === key)
      if (column) return column[1].includes(value ?? '')
      return row.id === word || texts.some(([, text]) => text.includes(word))
    })
  })
}

/** Rows by a column's key, with `-` before it from the greatest down. Text is compared as people count: 2 before 10. */
export function sorted<T extends Row>(rows: T[], columns: Column<T>[], sort: string | undefined): T[] {
  const descending = sort?.startsWith('-')
  const column = columns.find(({ key }) => key === (descending ? sort?.slice(1) : sort))
  if (!column) return rows
  const values = new Map(rows.map((row) => [row, column.value(row)]))
  const compare = (a: T, b: T) => {
    const [x, y] = [values.get(a) ?? '', values.get(b) ?? '']
    return typeof x === 'number' && typeof y === 'number' ? x - y : natural.compare(String(x), String(y))
  }
  return rows.toSorted(descending ? (a, b) => compare(b, a) : compare)
}

const natural = new Intl.Collator('en', { numeric: true })

/** What a click on a column's title sorts by next: up, down, not at all. */
export function nextSort(sort: string | undefined, key: string): string | undefined {
  if (sort === key) return `-${key}`
  return sort === `-${key}` ? undefined : key
}
