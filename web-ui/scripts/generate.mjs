// Makes what the console knows of the API from the document that is checked in: the types of all calls, and
// what its forms ask for. Neither is checked in, so neither can be old.
import { readFileSync, writeFileSync } from 'node:fs'
import openapiTS, { astToString } from 'openapi-typescript'

const source = new URL('../../openapi/cumulo.json', import.meta.url)
const api = new URL('../src/api/', import.meta.url)
const document = JSON.parse(readFileSync(source, 'utf8'))

writeFileSync(new URL('schema.d.ts', api), astToString(await openapiTS(source, { alphabetize: true })))

const schemas = document.components.schemas
const named = (reference) => reference.split('/').at(-1)

/** A field as a form needs it: references resolved, `null` told apart. */
function field(schema) {
  const nullable = [schema.type, ...(schema.oneOf ?? []).map(({ type }) => type)].flat().includes('null')
  return { ...shapeOf(schema), ...(nullable && { nullable }) }
}

function shapeOf(schema) {
  const description = schema.description
  if (schema.$ref && /^Labels(Patch)?$/.test(named(schema.$ref))) return { type: 'labels', description }
  const alternatives = schema.oneOf?.filter((one) => one.type !== 'null')
  if (alternatives?.length === 1) return { ...field(alternatives[0]), ...(description && { description }) }
  if (schema.$ref) return { ...field(schemas[named(schema.$ref)]), ...(description && { description }) }
  const type = [schema.type ?? 'any'].flat().find((one) => one !== 'null')
  const { enum: choices, minimum, maximum, pattern, maxLength, minLength, example } = schema
  const of = schema.items?.$ref ? schemas[named(schema.items.$ref)] : schema.items
  const items = of && (of.type === 'string' ? 'string' : 'object')
  const all = { type, description, choices, minimum, maximum, pattern, maxLength, minLength, example, items }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

const forms = {}
for (const [name, schema] of Object.entries(schemas)) {
  if (!/^(Create|Update|Attach|Associate|Restore|Detach|RouterSubnet|Stop|Import|Wanted|Resize|Rebuild|Rescue|Declare)/.test(name)) continue
  if (schema.type !== 'object') continue
  const properties = Object.entries(schema.properties ?? {}).map(([key, value]) => [key, field(value)])
  forms[name] = { required: schema.required ?? [], properties: Object.fromEntries(properties) }
}
writeFileSync(new URL('forms.json', api), JSON.stringify(forms))
