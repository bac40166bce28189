/** docs/telemetry.md lists every event with its fields, as src/telemetry.ts declares them. */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { TELEMETRY_CHANNELS } from '../../src/telemetry.ts'
import { pathOf } from './pages.ts'

/** `name` or `name?`, sorted. */
type Fields = readonly string[]

const source = readFileSync(pathOf('src/telemetry.ts'), 'utf8').replaceAll(/\/\*\*.*?\*\//gs, '')
const page = readFileSync(pathOf('docs/telemetry.md'), 'utf8')

/** What stands between the braces of an interface, and what it extends. */
function interfaceOf(name: string): { readonly body: string; readonly base: string | undefined } {
  const [, base, body] = new RegExp(`interface ${name}(?: extends (\\w+))? \\{\\n(.*?)\\n\\}`, 's').exec(source) ?? []
  if (body === undefined) throw new Error(`src/telemetry.ts has no interface ${name}`)
  return { body, base }
}

function membersIn(body: string): Fields {
  return [...body.matchAll(/readonly (\w+\??):/g)].map(([, name = '']) => name)
}

function fieldsOfInterface(name: string): Fields {
  const { body, base } = interfaceOf(name)
  return [...(base === undefined ? [] : fieldsOfInterface(base)), ...membersIn(body)]
}

/** Of a type such as `GateEvent & { readonly waitedMs: number }`. */
function fieldsOfType(type: string): Fields {
  const named = [...type.replaceAll(/\{.*?\}/gs, '').matchAll(/\w+/g)].flatMap(([name]) => fieldsOfInterface(name))
  return [...named, ...membersIn(type)].toSorted()
}

function declared(): Map<string, Fields> {
  const [, ...parts] = interfaceOf('TelemetryEvents').body.split(/'(flowstone:[\w.]+)':/)
  const events = new Map<string, Fields>()
  for (let at = 0; at < parts.length; at += 2) events.set(parts[at] ?? '', fieldsOfType(parts[at + 1] ?? ''))
  return events
}

function listed(): Map<string, Fields> {
  const rows = [...page.matchAll(/^\| `(flowstone:[\w.]+)` \| .* \| ([^|]+) \|$/gm)]
  return new Map(
    rows.map(([, name = '', fields = '']) => [
      name,
      [...fields.matchAll(/`([\w?]+)`/g)].map(([, field = '']) => field).toSorted(),
    ]),
  )
}

it('docs/telemetry.md lists all channels, and no others', () => {
  expect([...listed().keys()].toSorted()).toEqual([...TELEMETRY_CHANNELS].toSorted())
})

it.each([...declared()])('docs/telemetry.md lists the fields of %s', (name, fields) => {
  expect(listed().get(name), `correct the row of ${name} in docs/telemetry.md`).toEqual(fields)
})
