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
  const [, list = ''] = /^const OPTIONS = \[(.*?)\]/ms.exec(source) ?? []
  return [...list.matchAll(/'(\w+)'/g)].map(([, name = '']) => name)
}

it('docs/http.md lists the options of gateHandler and serveGates', () => {
  const listed = firstCells(section('Which options are there?'), 'option').map((name) => name.split('.')[0])
  expect([...new Set(listed)].toSorted()).toEqual(
    [...optionsOf('src/http/gates/handler.ts'), 'port', 'host'].toSorted(),
  )
})

it('docs/http.md lists the options of a sender', () => {
  const text = section('How does a service answer that signs its webhooks?')
  expect(firstCells(text, 'option of a sender').toSorted()).toEqual(optionsOf('src/http/gates/verified.ts').toSorted())
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
