/**
 * docs/permissions.md lists what `permissionsOf` allows, which test/integration/permissions.test.ts
 * tries on a server.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { permissionsOf, ROLES, type Role } from '../kit/permissions.ts'
import { pathOf } from './pages.ts'

const page = readFileSync(pathOf('docs/permissions.md'), 'utf8')
const SHARDS = 2

/** From the heading of a role to the next heading. */
function sectionOf(role: Role): string {
  const [, section] = new RegExp(`^### Role \`${role}\`\n(.*?)^##`, 'ms').exec(page) ?? []
  if (section === undefined) throw new Error(`docs/permissions.md has no section for the role ${role}`)
  return section
}

function codesIn(text: string): string[] {
  return [...text.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code)
}

const groups = new Map(
  [...page.matchAll(/^\| ([a-z ]+) \| (`\$.*) \|$/gm)].map(([, name = '', subjects = '']) => [name, codesIn(subjects)]),
)

function subjectsOfGroups(section: string): readonly string[] {
  const named = /^Groups: ([^.]+)\./m.exec(section)?.[1]?.split(/,\s+/) ?? []
  return named.flatMap((name) => {
    const subjects = groups.get(name)
    if (!subjects) throw new Error(`docs/permissions.md has no group ${name}`)
    return subjects
  })
}

/** First cells of the rows below this head. */
function column(section: string, head: string): readonly string[] {
  const [, rows = ''] = new RegExp(`^\\| ${head} \\|.*\n\\|[-|]+\\|\n((?:\\|.*\n)*)`, 'm').exec(section) ?? []
  return rows.split('\n').flatMap((row) => codesIn(row.split('|')[1] ?? ''))
}

/** Lines with `STREAM` are for each stream, lines with `<shard>` for each shard. */
function expanded(section: string, subjects: readonly string[]): string[] {
  const streams = codesIn(/^The streams `STREAM` are (.*?):/ms.exec(section)?.[1] ?? '')
  return subjects
    .flatMap((subject) =>
      subject.includes('STREAM.>') || subject.endsWith('.STREAM')
        ? streams.map((stream) => subject.replace(/\bSTREAM(?=$|\.>)/, stream))
        : [subject],
    )
    .flatMap((subject) =>
      subject.includes('<shard>')
        ? Array.from({ length: SHARDS }, (_, shard) => subject.replace('<shard>', `${shard}`))
        : [subject],
    )
}

describe.each(ROLES)('docs/permissions.md, role %s', (role) => {
  const allowed = permissionsOf(role, { ns: 'ns', shards: SHARDS, pipeline: 'shop', queue: 'default' })
  const section = sectionOf(role)

  it('lists what it may publish to', () => {
    const listed = expanded(section, [...subjectsOfGroups(section), ...column(section, 'publish')])
    expect([...new Set(listed)].toSorted()).toEqual([...new Set(allowed.publish)].toSorted())
  })

  it('lists what it may subscribe to', () => {
    expect(expanded(section, column(section, 'subscribe')).toSorted()).toEqual([...allowed.subscribe].toSorted())
  })
})
