/** docs/api.md lists routes and options as src/http/api has them. */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { INSTANCE_STATES } from '../../projections/scatter/map.ts'
import { ROUTES } from '../../src/http/api/table.ts'
import { pathOf } from './pages.ts'

const page = readFileSync(pathOf('docs/api.md'), 'utf8')

it('docs/api.md lists every route, what it needs, and what it does', () => {
  const listed = [...page.matchAll(/^\| `((?:GET|POST) .*)$/gm)].map(([row]) => row)
  const rows = ROUTES.map(
    ({ method, path, scope, wide, summary }) =>
      `| \`${method} ${path}\` | ${scope}${wide ? ', all assets' : ''} | ${summary} |`,
  )
  expect(listed).toEqual(rows)
})

it('docs/api.md lists the options of apiHandler that others have not', () => {
  const source = readFileSync(pathOf('src/http/api/handler.ts'), 'utf8')
  const [, list = ''] = /^const OPTIONS = \[(.*?)\]/ms.exec(source) ?? []
  const known = [...list.matchAll(/'(\w+)'/g)].map(([, name]) => name)
  const [, rows = ''] = /^\| option \| .*\n.*\n((?:\|.*\n)+)/m.exec(page) ?? []
  const listed = [...rows.matchAll(/^\| `(\w+)/gm)].map(([, name]) => name)
  expect([...new Set(listed)]).toEqual(known)
})

it('docs/api.md names the states of instances by their numbers', () => {
  const rows = [...page.matchAll(/^\| (\d) \| (\w+).*?\| (\d) \| (?:at a |as before, only in )?(\w+)/gm)]
  const named = rows.flatMap(([, a, first, b, second]) => [
    [a, first],
    [b, second],
  ])
  const names = INSTANCE_STATES.map((name, number) => [String(number), name === 'unchanged' ? 'changes' : name])
  expect(named.toSorted()).toEqual(names)
})
