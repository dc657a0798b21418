import { Button, Group, Stack, Text, UnstyledButton } from '@mantine/core'
import { useDebouncedValue } from '@mantine/hooks'
import { useMemo, useState, type FormEvent } from 'react'
import { call } from '../api/client'
import { useDryRun } from '../api/dryRun'
import { ApiProblem, asProblem, fieldErrors } from '../api/problem'
import type { FormSpec } from '../resources/resource'
import { t } from '../strings'
import { bodyOf, changed, formOf, localErrors, type Values } from './fields'
import { FieldInput } from './FieldInput'
import { ProblemAlert } from './ProblemAlert'

interface Props {
  spec: FormSpec
  method: 'POST' | 'PATCH'
  path: string
  project: string | undefined
  button: string
  onDone: (answer: unknown) => void
  onCancel: () => void
  ifMatch?: string
}

const FEW = 5

/** A form for any call: fields from the API's schema, and, while one types, what the API itself says of them. */
export function ResourceForm({ spec, method, path, project, button, onDone, onCancel, ifMatch }: Props) {
  const form = formOf(spec.schema)
  const [values, setValues] = useState<Values>(spec.initial ?? {})
  const [touched, setTouched] = useState<Set<string>>(new Set())
  const [more, setMore] = useState(false)
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const local = localErrors(spec.schema, spec.fields, values)
  const body = useMemo(() => {
    const whole = bodyOf(spec.schema, spec.fields, values)
    return method === 'PATCH' ? changed(spec.schema, whole, bodyOf(spec.schema, spec.fields, spec.initial ?? {}), spec.references) : { ...spec.fixed, ...whole }
  }, [spec, values, method])
  const complete = Object.keys(local).length === 0 && (method === 'POST' || Object.keys(body).length > 0)
  const [asked] = useDebouncedValue(JSON.stringify(body), 500)
  const check = useDryRun({ method, path, body: asked, enabled: complete && asked === JSON.stringify(body), ifMatch })
  const refusal = error ?? (complete ? check.error : null)
  const said = refusal ? asProblem(refusal) : undefined
  const remote = fieldErrors(said)
  const elsewhere = said && Object.keys(remote).every((name) => !spec.fields.includes(name))

  const submit = async (event: FormEvent) => {
    event.preventDefault()
    setTouched(new Set(spec.fields))
    if (!complete) return
    setBusy(true)
    setError(undefined)
    try {
      onDone(await call(method, path, { body, ifMatch }))
    } catch (problem) {
      setError(problem)
      setBusy(false)
    }
  }
  const change = (name: string, value: unknown) => {
    setError(undefined)
    setValues((before) => ({ ...before, [name]: value }))
  }
  const first = spec.fields.length > FEW + 1 && !more ? spec.fields.slice(0, FEW) : spec.fields
  return (
    <form onSubmit={(event) => void submit(event)} noValidate>
      <Stack>
        {spec.hint}
        {first.map((name, index) => {
          const field = form.properties[name]
          if (!field) throw new Error(`${spec.schema} has no field ${name}`)
          return (
            <FieldInput
              key={name} name={name} field={field} required={form.required.includes(name)} value={values[name]}
              error={remote[name] ?? (touched.has(name) ? local[name] : undefined)}
              reference={spec.references?.[name]} project={project} autoFocus={index === 0}
              onChange={(value) => change(name, value)} onBlur={() => setTouched((before) => new Set(before).add(name))}
            />
          )
        })}
        {spec.fields.length > FEW + 1 && (
          <UnstyledButton onClick={() => setMore(!more)} c="dimmed" fz="sm" aria-expanded={more}>{more ? `▾ ${t.form.fewer}` : `▸ ${t.form.more}`}</UnstyledButton>
        )}
        {said && elsewhere && <ProblemAlert error={new ApiProblem(said)} />}
        <Group justify="space-between">
          <Text size="sm" c="dimmed" role="status">{complete && check.isSuccess && !error ? `✓ ${t.form.accepted}` : ''}</Text>
          <Group>
            <Button variant="default" onClick={onCancel}>{t.form.cancel}</Button>
            <Button type="submit" loading={busy}>{button}</Button>
          </Group>
        </Group>
      </Stack>
    </form>
  )
}
