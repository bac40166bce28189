import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import { filesOf } from '../../src/cli/init/files.ts'
import { init } from '../../src/cli/init/init.ts'
import { scratchFolder } from '../kit/scratch.ts'

const OWN = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
const README = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')

it('flowstone init makes a project of the name of its folder, which needs this version', () => {
  using scratch = scratchFolder()
  using log = vi.spyOn(console, 'log').mockReturnValue()
  init(join(scratch.path, 'My Shop'), {})
  const read = (file: string): string => readFileSync(join(scratch.path, 'My Shop', file), 'utf8')
  const manifest = JSON.parse(read('package.json'))
  expect(manifest).toMatchObject({ name: 'my-shop', type: 'module', engines: OWN.engines })
  expect(manifest.dependencies).toEqual({ flowstone: `^${OWN.version}` })
  expect(manifest.devDependencies).toEqual({
    '@types/node': OWN.devDependencies['@types/node'],
    typescript: OWN.devDependencies.typescript,
  })
  expect(log.mock.calls.flat()).toContain('  npm install')
  // npm leaves a file of that name out of packages, so it is no file of ours.
  expect(read('.gitignore')).toContain('.flowstone/')
})

it('flowstone init names no project as a package that it installs', () => {
  using scratch = scratchFolder()
  using _log = vi.spyOn(console, 'log').mockReturnValue()
  const manifestOf = (folder: string) => {
    init(join(scratch.path, folder), {})
    return JSON.parse(readFileSync(join(scratch.path, folder, 'package.json'), 'utf8'))
  }
  const { dependencies, devDependencies } = manifestOf('shop')
  for (const name of Object.keys({ ...dependencies, ...devDependencies })) expect(manifestOf(name).name).not.toBe(name)
})

it('flowstone init writes nothing where it would overwrite something', () => {
  using scratch = scratchFolder()
  writeFileSync(join(scratch.path, 'README.md'), 'mine')
  expect(() => init(scratch.path, {})).toThrow(/init overwrites nothing, and \S+ has README.md: name an empty/)
  expect(readdirSync(scratch.path)).toEqual(['README.md'])
  expect(readFileSync(join(scratch.path, 'README.md'), 'utf8')).toBe('mine')
  expect(existsSync(join(scratch.path, 'package.json'))).toBe(false)
})

it('flowstone init names an empty name, a file in place of a folder, and a link that leads nowhere', () => {
  using scratch = scratchFolder()
  const at = (name: string): string => join(scratch.path, name)
  for (const name of ['', ' ']) expect(() => init(name, {})).toThrow(/^init: the name of the folder is empty/)
  writeFileSync(at('file'), 'mine')
  for (const name of ['file', 'file/below', 'file/far/below'])
    expect(() => init(at(name), {})).toThrow(`init: ${at('file')} is a file and no folder: name another folder`)
  symlinkSync('/nowhere/at-all', at('pipeline.ts'))
  expect(() => init(scratch.path, {})).toThrow(/init overwrites nothing, and \S+ has pipeline\.ts/)
  symlinkSync('/nowhere/at-all', at('link'))
  expect(() => init(at('link'), {})).toThrow(/link is a file and no folder/)
  expect(readdirSync(scratch.path).toSorted()).toEqual(['file', 'link', 'pipeline.ts'])
})

it('flowstone init writes the letters of a name without their accents', () => {
  using scratch = scratchFolder()
  using _log = vi.spyOn(console, 'log').mockReturnValue()
  init(join(scratch.path, 'Über Café'), {})
  expect(JSON.parse(readFileSync(join(scratch.path, 'Über Café/package.json'), 'utf8')).name).toBe('uber-cafe')
})

it('the pipeline of a new project is that of the README', () => {
  const made = filesOf({ name: 'n', version: '1.0.0' })['pipeline.ts'] ?? ''
  const shown = /```ts\n(import \{ asset, pipeline \}.*?)```/s.exec(README)?.[1]
  expect(made.replaceAll(/^\/\/.*\n/gm, '').replaceAll('export const', 'const')).toBe(shown)
})
