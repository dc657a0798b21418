import { Checkbox } from '@mantine/core'
import { useVirtualizer } from '@tanstack/react-virtual'
import { memo, useCallback, useEffect, useRef } from 'react'
import type { Column, Row } from '../resources/resource'
import { t } from '../strings'
import style from './DataTable.module.css'
import { nextSort } from './rows'

const ROW_HEIGHT = 45

interface Props<T extends Row> {
  label: string
  columns: Column<T>[]
  rows: T[]
  project: string | undefined
  sort: string | undefined
  onSort: (sort: string | undefined) => void
  selected?: Set<string>
  onSelect?: (selected: Set<string>) => void
}

/** A table that draws only the rows that are seen, however many there are. */
export function DataTable<T extends Row>({ label, columns, rows, project, sort, onSort, selected, onSelect }: Props<T>) {
  const scroll = useRef<HTMLDivElement>(null)
  const virtual = useVirtualizer({ count: rows.length, getScrollElement: () => scroll.current, estimateSize: () => ROW_HEIGHT, overscan: 12, initialRect: { width: 800, height: 800 } })
  const items = virtual.getVirtualItems()
  const above = items[0]?.start ?? 0
  const below = virtual.getTotalSize() - (items.at(-1)?.end ?? 0)
  const width = columns.length + (onSelect ? 1 : 0)
  const all = rows.length > 0 && rows.every((row) => selected?.has(row.id))
  const select = useRef({ selected, onSelect })
  useEffect(() => { select.current = { selected, onSelect } })
  const toggle = useCallback((id: string) => {
    const next = new Set(select.current.selected)
    if (!next.delete(id)) next.add(id)
    select.current.onSelect?.(next)
  }, [])
  return (
    <div className={style.scroll} ref={scroll} tabIndex={0} role="region" aria-label={label}>
      <table className={style.table} aria-rowcount={rows.length + 1}>
        <thead>
          <tr aria-rowindex={1}>
            {onSelect && (
              <th className={style.check} scope="col">
                <Checkbox size="xs" aria-label={t.table.selectAll} checked={all} indeterminate={!all && (selected?.size ?? 0) > 0} onChange={() => onSelect(new Set(all ? [] : rows.map((row) => row.id)))} />
              </th>
            )}
            {columns.map((column) => <Title key={column.key} column={column} sort={sort} onSort={onSort} />)}
          </tr>
        </thead>
        <tbody>
          {above > 0 && <tr className={style.spacer} aria-hidden><td colSpan={width} style={{ height: above }} /></tr>}
          {items.map(({ index }) => {
            const row = rows[index]
            if (!row) return null
            return <Line key={row.id} index={index} row={row} columns={columns} project={project} selectable={onSelect !== undefined} selected={selected?.has(row.id) ?? false} toggle={toggle} />
          })}
          {below > 0 && <tr className={style.spacer} aria-hidden><td colSpan={width} style={{ height: below }} /></tr>}
        </tbody>
      </table>
    </div>
  )
}

interface LineProps {
  index: number
  row: Row
  columns: Column<any>[]
  project: string | undefined
  selectable: boolean
  selected: boolean
  toggle: (id: string) => void
}

/** A row, which is drawn anew only when it has changed: not while one scrolls past it. */
const Line = memo(function Line({ index, row, columns, project, selectable, selected, toggle }: LineProps) {
  return (
    <tr aria-rowindex={index + 2}>
      {selectable && <td className={style.check}><Checkbox size="xs" aria-label={t.table.select(row.name ?? row.id)} checked={selected} onChange={() => toggle(row.id)} /></td>}
      {columns.map((column) => (
        <td key={column.key} className={`${column.wide ? style.wide : ''} ${column.align ? style.right : ''}`}>
          {column.render ? column.render(row, project) : column.value(row)}
        </td>
      ))}
    </tr>
  )
})

function Title<T>({ column, sort, onSort }: { column: Column<T>; sort: string | undefined; onSort: (sort: string | undefined) => void }) {
  const title = t.field(column.key)
  const up = sort === column.key
  const down = sort === `-${column.key}`
  return (
    <th scope="col" className={`${column.wide ? style.wide : ''} ${column.align ? style.right : ''}`} aria-sort={up ? 'ascending' : down ? 'descending' : 'none'}>
      <button type="button" className={style.sort} onClick={() => onSort(nextSort(sort, column.key))} aria-label={t.table.sortBy(title)}>
        {title}<span aria-hidden>{up ? '↑' : down ? '↓' : ''}</span>
      </button>
    </th>
  )
}
