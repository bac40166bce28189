import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { scratchFolder } from '../kit/scratch.ts'
import { FROM_SOURCE, runCommand, writeModule } from './kit.ts'

const UNEXPORTED = `import { asset, pipeline } from 'flowstone'
const a = asset('a', { execute: () => 1 })
const nightly = pipeline('nightly', [a])
`
const EXPORT_IT = /p\.ts declares the pipeline nightly and exports none: write export before its const/

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
  ['a pipeline that is not exported', { 'p.ts': UNEXPORTED }, EXPORT_IT],
])('a file with %s says what to do', async (_, files, advice) => {
  using scratch = scratchFolder()
  for (const [name, text] of Object.entries(files)) writeModule(scratch.path, name, text)
  const { code, stderr } = await runCommand(['worker', 'p.ts'], {
    cwd: scratch.path,
    env: { NATS_URL: 'nats://127.0.0.1:1' },
  })
  expect(stderr).toMatch(advice)
  expect(code).not.toBe(0)
})

it('the command from source shares its instance of FlowStone with the file that it loads', async () => {
  using scratch = scratchFolder()
  writeModule(scratch.path, 'p.ts', UNEXPORTED, FROM_SOURCE)
  const { code, stderr } = await runCommand(['worker', 'p.ts'], {
    cwd: scratch.path,
    env: { NATS_URL: 'nats://127.0.0.1:1' },
    main: FROM_SOURCE.main,
  })
  expect(stderr).toMatch(EXPORT_IT)
  expect(code).not.toBe(0)
})

it('an import of flowstone by an older Node fails with what is needed', async () => {
  const cwd = fileURLToPath(new URL('../../', import.meta.url))
  const older = `data:text/javascript,Object.defineProperty(process,'versions',{value:{...process.versions,node:'20.20.2'}})`
  const args = ['--import', older, '--input-type=module', '--eval', "import './src/index.ts'"]
  const { stderr } = await promisify(execFile)(process.execPath, args, { cwd }).catch((error) => error)
  expect(stderr).toContain('Error: flowstone: needs Node 22.18 or later, and this is 20.20.2; install a newer one')
})
