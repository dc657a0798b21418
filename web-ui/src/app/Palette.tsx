import { Modal, Text, TextInput, UnstyledButton } from '@mantine/core'
import { useQueryClient } from '@tanstack/react-query'
import { useNavigate } from '@tanstack/react-router'
import { useMemo, useState, type KeyboardEvent } from 'react'
import type { Row } from '../resources/resource'
import { t } from '../strings'
import { cloudSections, projectSections } from './places'
import style from './Palette.module.css'

interface Goal {
  label: string
  hint: string
  go: () => void
}

const SHOWN = 12

/** Anywhere by a few letters: pages, what can be made, and what is in the lists that were looked at. */
export function Palette({ opened, close, project }: { opened: boolean; close: () => void; project: string | undefined }) {
  return (
    <Modal opened={opened} onClose={close} withCloseButton={false} size="lg" yOffset="12vh" attributes={{ content: { 'aria-label': t.palette } }} padding="sm">
      {opened && <Search close={close} project={project} />}
    </Modal>
  )
}

function Search({ close, project }: { close: () => void; project: string | undefined }) {
  const [text, setText] = useState('')
  const [at, setAt] = useState(0)
  const goals = useGoals(project)
  const found = useMemo(() => match(goals, text), [goals, text])
  const choose = (goal: Goal | undefined) => {
    if (!goal) return
    close()
    goal.go()
  }
  const key = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
    if (step) setAt((before) => (before + step + found.length) % Math.max(1, found.length))
    else if (event.key === 'Enter') choose(found[at])
    else return
    event.preventDefault()
  }
  return (
    <>
      <TextInput
        data-autofocus size="md" variant="unstyled" px="sm" placeholder={t.paletteHint} aria-label={t.paletteHint} value={text} onKeyDown={key} role="combobox" aria-expanded aria-controls="goals" aria-activedescendant={found[at] ? `goal-${at}` : undefined}
        onChange={(event) => { setText(event.currentTarget.value); setAt(0) }}
      />
      <div id="goals" role="listbox" aria-label={t.palette}>
        {found.map((goal, index) => (
          <UnstyledButton key={goal.label + goal.hint} id={`goal-${index}`} role="option" aria-selected={index === at} tabIndex={-1} className={style.goal} data-active={index === at || undefined} onMouseEnter={() => setAt(index)} onClick={() => choose(goal)}>
            <Text size="sm" truncate>{goal.label}</Text><Text size="xs" c="dimmed">{goal.hint}</Text>
          </UnstyledButton>
        ))}
        {found.length === 0 && <Text size="sm" c="dimmed" p="sm">{t.paletteNothing}</Text>}
      </div>
    </>
  )
}

function match(goals: Goal[], text: string): Goal[] {
  const wanted = text.toLowerCase().split(/\s+/).filter(Boolean)
  return goals.filter(({ label, hint }) => wanted.every((word) => `${label} ${hint}`.toLowerCase().includes(word))).slice(0, SHOWN)
}

function useGoals(project: string | undefined): Goal[] {
  const navigate = useNavigate()
  const client = useQueryClient()
  return useMemo(() => {
    const goals: Goal[] = []
    if (project) {
      goals.push({ label: t.instance.title, hint: project, go: () => void navigate({ to: '/projects/$project/create_instance', params: { project } }) })
      for (const { name } of projectSections.flatMap(({ places }) => places)) {
        goals.push({ label: t.resource(name).title, hint: project, go: () => void navigate({ to: '/projects/$project/$resource', params: { project, resource: name } }) })
      }
    }
    for (const { name } of cloudSections.flatMap(({ places }) => places)) {
      goals.push({ label: t.resource(name).title, hint: t.sections.cloud, go: () => void navigate({ to: '/cloud/$resource', params: { resource: name } }) })
    }
    goals.push({ label: t.account, hint: t.product, go: () => void navigate({ to: '/account' }) })
    for (const [key, rows] of client.getQueriesData<Row[]>({ predicate: ({ queryKey }) => queryKey[0] === 'projects' && queryKey[1] === project && queryKey.length === 3 })) {
      const resource = String(key[2])
      if (!Array.isArray(rows) || !project) continue
      for (const row of rows.slice(0, 2000)) {
        if (row.name) goals.push({ label: row.name, hint: t.resource(resource).one, go: () => void navigate({ to: '/projects/$project/$resource/$id', params: { project, resource, id: row.id } }) })
      }
    }
    return goals
  }, [project, navigate, client])
}
