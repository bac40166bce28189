/**
 * What the package exports has a docstring. `npm run docs:api` refuses the same. It takes longer,
 * and it needs a compiler of its own.
 */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ROOT } from './pages.ts'

const ENTRIES = ['src/index.ts', 'src/http/index.ts', 'src/server/index.ts', 'src/items/index.ts', 'src/otel/index.ts']

interface Exported {
  readonly name: string
  readonly file: string
}

/** Names that a file of `export { … } from '…'` passes on, and where they are declared. */
function exportedBy(entry: string): Exported[] {
  const source = readFileSync(join(ROOT, entry), 'utf8')
  return [...source.matchAll(/^export (?:type )?\{([^}]*)\} from '([^']+)'/gm)].flatMap(([, names = '', from = '']) =>
    names
      .split(',')
      .map((name) => name.trim().replace(/^type /, ''))
      .filter((name) => name !== '')
      .map((name) => ({ name, file: join(dirname(entry), from) })),
  )
}

/** Whether a docstring ends right above the declaration. */
function isDocumented(source: string, name: string): boolean {
  const kinds = '(?:abstract class|class|interface|type|const|(?:async )?function\\*?)'
  return new RegExp(`\\*/\\n(?:// biome-ignore .*\\n)?export ${kinds} ${name}\\b`).test(source)
}

describe('the entry point', () => {
  it.each(ENTRIES)('%s exports no name without a docstring', (entry) => {
    const exported = exportedBy(entry)
    expect(exported.length).toBeGreaterThan(2)
    const bare = exported.filter(({ name, file }) => !isDocumented(readFileSync(join(ROOT, file), 'utf8'), name))
    expect(bare).toEqual([])
  })
})

it('a docstring is missed where there is none, and where it belongs to something else', () => {
  const source = '/** Of a. */\nexport const a = 1\nexport const b = 2\n/** Of c. */\n\nexport type c = 3\n'
  expect(['a', 'b', 'c'].filter((name) => isDocumented(source, name))).toEqual(['a'])
})
