/**
 * docs/other-languages.md lists the members of triggers and of what the feed shows, as
 * streams/schemas.ts declares them.
 */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { FACTS, type FactName } from '../../streams/facts.ts'
import { triggerBody } from '../../streams/run-schemas.ts'
import { pathOf } from './pages.ts'

const page = readFileSync(pathOf('docs/other-languages.md'), 'utf8')

const FEED = [
  'asset.materialized',
  'asset.failed',
  'asset.skipped',
  'asset.cancelled',
  'run.finished',
  'scatter.closed',
  'gate.created',
  'trigger.refused',
  'event.refused',
  'schedule.missed',
  'schedule.skipped',
] as const satisfies readonly FactName[]

/**
 * Code in the last cell of the row that begins with this. What stands in parentheses explains a
 * member.
 */
function listed(name: string): string[] {
  const row = page.split('\n').find((line) => line.startsWith(`| \`${name}\` | `)) ?? ''
  const cell = row.split('|').at(-2) ?? ''
  return [...cell.replaceAll(/\([^)]*\)/g, '').matchAll(/`([\w?]+)`/g)].map(([, member = '']) => member).toSorted()
}

it.each(FEED)('docs/other-languages.md lists the members of %s', (name) => {
  const { shape } = FACTS[name].schema
  // What was sent with a refused trigger is left out: see streams/feed.ts.
  const shown = Object.entries(shape).filter(([member]) => name !== 'trigger.refused' || member !== 'kept')
  const members = shown.map(([member, type]) => (type.isOptional() ? `${member}?` : member))
  expect(listed(name)).toEqual(members.toSorted())
})

it('docs/other-languages.md lists the members of a trigger', () => {
  const [, table = ''] = /^\| member \|.*\n\|[-|]+\|\n((?:\|.*\n)+)/m.exec(page) ?? []
  const members = [...table.matchAll(/^\| `(\w+)`/gm)].map(([, member = '']) => member)
  expect(members.toSorted()).toEqual(Object.keys(triggerBody.shape).toSorted())
})
