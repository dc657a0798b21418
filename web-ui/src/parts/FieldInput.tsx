import { Autocomplete, JsonInput, NumberInput, Select, Switch, TagsInput, Textarea, TextInput } from '@mantine/core'
import { useRows } from '../api/rows'
import { registry } from '../resources/registry'
import { t } from '../strings'
import { isJson, isLong, type Field } from './fields'

interface Props {
  name: string
  field: Field
  required: boolean
  value: unknown
  error: string | undefined
  reference: string | undefined
  project: string | undefined
  onChange: (value: unknown) => void
  onBlur: () => void
  autoFocus?: boolean
}

/** The input that suits a field of the API, with the API's own words about it. */
export function FieldInput(props: Props) {
  const { name, field, value, error, required, onChange, onBlur, autoFocus } = props
  const shared = {
    label: t.field(name), description: plain(field.description), error, withAsterisk: required, onBlur, name,
    // One that opens when it is focused would hide what is below it.
    ...(autoFocus && !props.reference ? { 'data-autofocus': true } : {}),
  }
  const hint = typeof field.example === 'string' || typeof field.example === 'number' ? String(field.example) : undefined
  if (props.reference) return <Reference {...props} shared={shared} />
  if (field.choices) return <Select {...shared} data={field.choices} value={(value as string) ?? null} onChange={onChange} clearable={!required} placeholder={t.form.none} />
  if (field.type === 'boolean') return <Switch name={name} label={t.field(name)} description={shared.description} error={error} checked={Boolean(value)} onChange={(event) => onChange(event.currentTarget.checked)} />
  if (field.type === 'integer' || field.type === 'number') return <NumberInput {...shared} allowDecimal={field.type === 'number'} value={(value as number) ?? ''} onChange={(next) => onChange(next === '' ? undefined : Number(next))} placeholder={hint} />
  if (field.type === 'labels') return <TagsInput {...shared} value={(value as string[]) ?? []} onChange={onChange} placeholder={t.form.labels} />
  if (field.type === 'array' && field.items === 'string') return <TagsInput {...shared} value={(value as string[]) ?? []} onChange={onChange} placeholder={t.form.list} />
  if (isJson(field)) return <JsonInput {...shared} value={(value as string) ?? ''} onChange={onChange} autosize minRows={3} maxRows={24} formatOnBlur styles={{ input: { fontFamily: 'var(--mantine-font-family-monospace)' } }} />
  if (isLong(field)) return <Textarea {...shared} value={(value as string) ?? ''} onChange={(event) => onChange(event.currentTarget.value)} autosize minRows={3} maxRows={16} spellCheck={false} />
  return <TextInput {...shared} type={name.includes('password') ? 'password' : 'text'} value={(value as string) ?? ''} onChange={(event) => onChange(event.currentTarget.value)} placeholder={hint} autoComplete="off" spellCheck={name === 'description'} />
}

/** A name of another resource, completed from those that there are. */
function Reference({ reference, project, value, onChange, shared }: Props & { shared: object }) {
  const resource = registry.find((one) => one.name === reference && (project !== undefined || one.scope === 'cloud'))
  if (!resource) throw new Error(`no resource ${reference}`)
  const rows = useRows(resource, project)
  const names = [...new Set((rows.data ?? []).map((row) => row.name ?? row.id))]
  return <Autocomplete {...shared} data={names} limit={50} value={(value as string) ?? ''} onChange={onChange} spellCheck={false} maxDropdownHeight={280} />
}

/** The first sentences, without the marks of Markdown. */
function plain(description: string | undefined): string | undefined {
  return description?.replaceAll('`', '').replaceAll('\n', ' ')
}
