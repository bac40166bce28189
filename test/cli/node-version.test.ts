import { globSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { tooOld } from '../../streams/node-version.ts'

const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
const needed = String(manifest.engines.node).replace('>=', '')

it.each([`${needed}.0`, '22.99.1', '24.0.0', '100.0.0'])('Node %s is new enough', (version) => {
  expect(tooOld(version)).toBeUndefined()
})

it.each(['18.19.0', '20.20.2', '22.17.9'])('Node %s is refused, and the error says what is needed', (version) => {
  expect(tooOld(version)).toBe(`flowstone: needs Node ${needed} or later, and this is ${version}; install a newer one`)
})

const root = fileURLToPath(new URL('../../', import.meta.url))

it('no module but one imports by name what an older Node has not, which would fail before that', () => {
  const files = globSync('{src,streams,projections}/**/*.ts', { cwd: root })
  expect(files.length).toBeGreaterThan(300)
  expect(files.filter((file) => /zstd.* from 'node:zlib'/i.test(readFileSync(`${root}${file}`, 'utf8')))).toEqual([])
})
