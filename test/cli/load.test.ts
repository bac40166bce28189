import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { scratchFolder } from '../kit/scratch.ts'
import { runCommand } from './kit.ts'

const FLOWSTONE = join(import.meta.dirname, '..', '..', 'src', 'index.ts')

it.each([
  [
    'an enum',
    { 'p.ts': 'export enum Colour { red }' },
    /p\.ts cannot be loaded: .*no enum, namespace, parameter property or decorator/,
  ],
  [
    'a decorator',
    { 'p.ts': 'const d = (x: unknown) => x\n@d class A {}\nexport const a = A' },
    /no enum, namespace, parameter property or decorator/,
  ],
  [
    'a .js that is a .ts',
    { 'p.ts': "import './other.js'", 'other.ts': 'export {}' },
    /There is other\.ts: import it with that ending/,
  ],
  ['no ending', { 'p.ts': "import './other'", 'other.ts': 'export {}' }, /Write the ending of the file too/],
  [
    'an alias of tsconfig.json',
    { 'p.ts': "import '@/assets'" },
    /Node does not read paths of tsconfig\.json: import @\/assets by its relative path/,
  ],
  [
    'a pipeline that is not exported',
    {
      'p.ts': `import { asset, pipeline } from ${JSON.stringify(FLOWSTONE)}\nconst a = asset('a', { execute: () => 1 })\nconst nightly = pipeline('nightly', [a])`,
    },
    /p\.ts declares the pipeline nightly and exports none: write export before its const/,
  ],
])('a file with %s says what to do', async (_, files, advice) => {
  using scratch = scratchFolder()
  mkdirSync(scratch.path, { recursive: true })
  for (const [name, text] of Object.entries(files)) writeFileSync(join(scratch.path, name), text)
  const { code, stderr } = await runCommand(['worker', 'p.ts'], {
    cwd: scratch.path,
    env: { NATS_URL: 'nats://127.0.0.1:1' },
  })
  expect(stderr).toMatch(advice)
  expect(code).not.toBe(0)
})
