/** docs/http.md lists options and reasons as src/http has them. */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { pathOf } from './pages.ts'

const page = readFileSync(pathOf('docs/http.md'), 'utf8')

/** From this heading to the next one. */
function section(heading: string): string {
  const [, text] = new RegExp(`^## ${heading.replaceAll('?', '\\?')}\n(.*?)(?:^## |$(?![^]))`, 'ms').exec(page) ?? []
  if (text === undefined) throw new Error(`docs/http.md has no section ${heading}`)
  return text
}

/** The code in the first cells of the tables with this head. */
function firstCells(text: string, head: string): string[] {
  const tables = [...text.matchAll(new RegExp(`^\\| ${head} \\|.*\n\\|[-|]+\\|\n((?:\\|.*\n)+)`, 'gm'))]
  return tables.flatMap(([, rows = '']) => [...rows.matchAll(/^\| `([\w.]+)`/gm)].map(([, name = '']) => name))
}

/** Names of the list of options in a file. */
function optionsOf(path: string): string[] {
  const source = readFileSync(pathOf(path), 'utf8')
  const [, list = ''] = /^(?:export )?const (?:COMMON_)?OPTIONS = \[(.*?)\]/ms.exec(source) ?? []
  const common = list.includes('...COMMON_OPTIONS') ? optionsOf('src/http/shared/limits.ts') : []
  return [...common, ...[...list.matchAll(/'(\w+)'/g)].map(([, name = '']) => name)]
}

it('docs/http.md lists the options of gateHandler, runHandler and serveGates', () => {
  const listed = firstCells(section('Which options are there?'), 'option').map((name) => name.split('.')[0])
  expect([...new Set(listed)].toSorted()).toEqual(
    [
      ...new Set([
        ...optionsOf('src/http/gates/handler.ts'),
        ...optionsOf('src/http/runs/handler.ts'),
        'port',
        'host',
        'api',
        'console',
      ]),
    ].toSorted(),
  )
})

it('docs/http.md lists the options of a sender', () => {
  const text = section('How does a service answer that signs its webhooks?')
  expect(firstCells(text, 'option of a sender').toSorted()).toEqual(optionsOf('src/http/gates/verified.ts').toSorted())
})

it('docs/http.md lists the options of an API key', () => {
  const text = section('How do I start runs?')
  expect(firstCells(text, 'option of an API key').toSorted()).toEqual(
    optionsOf('src/http/shared/api-keys.ts').toSorted(),
  )
})

it('docs/http.md lists the options of a webhook', () => {
  const [, rows = ''] =
    /^\| option of a webhook .*\n.*\n((?:\|.*\n)+)/m.exec(section('How do webhooks start runs?')) ?? []
  const names = rows
    .split('\n')
    .flatMap((row) => [...(row.split('|')[1] ?? '').matchAll(/`(\w+)`/g)].map(([, name]) => name))
  expect(names.toSorted()).toEqual(optionsOf('src/http/runs/webhooks.ts').toSorted())
})

it('docs/http.md lists all reasons with their status', () => {
  const source = readFileSync(pathOf('src/http/shared/problem.ts'), 'utf8')
  const [, table = ''] = /PROBLEMS: .*? = \{\n(.*?)\n\}/s.exec(source) ?? []
  const known = [...table.matchAll(/^ {2}(\w+): \[\s*(\d+)/gm)].map(([, reason, status]) => `${status} ${reason}`)
  const rows = section('What is it answered?').matchAll(/^\| (\d{3}) \| ([^|]+) \|/gm)
  const listed = [...rows].flatMap(([, status, reasons = '']) =>
    [...reasons.matchAll(/`(\w+)`/g)].map(([, reason]) => `${status} ${reason}`),
  )
  expect(listed.toSorted()).toEqual(known.toSorted())
})
