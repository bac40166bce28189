/** `flowstone init`: a project that runs, with a test. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { basename, join, relative, resolve } from 'node:path'
import { InvalidError } from '../../../streams/errors.ts'
import { outputOf } from '../output.ts'
import { version } from '../version.ts'
import { filesOf } from './files.ts'

export function init(folder: string, { json }: { readonly json?: boolean }): void {
  const dir = resolve(folder)
  const files = filesOf({ name: packageName(basename(dir)), version: version() })
  const present = Object.keys(files).filter((file) => existsSync(join(dir, file)))
  if (present.length > 0)
    throw new InvalidError(
      `init overwrites nothing, and ${dir} has ${present.join(', ')}: name an empty or a new folder`,
    )
  mkdirSync(dir, { recursive: true })
  for (const [file, text] of Object.entries(files)) writeFileSync(join(dir, file), text, { flag: 'wx' })
  const from = relative(process.cwd(), dir)
  outputOf(json === true).result({ dir, files: Object.keys(files) }, () => [
    `made ${Object.keys(files).join(', ')}`,
    '',
    'Next:',
    ...(from === '' ? [] : [`  cd ${/^[\w./-]+$/.test(from) ? from : `'${from.replaceAll("'", "'\\''")}'`}`]),
    '  npm install',
    '  npm test                  # makes the report on a server of its own',
    '  npm run dev               # server, engine, worker and console',
    '  npx flowstone run report  # in a second terminal of this folder',
  ])
}

const INSTALLED: ReadonlySet<string> = new Set(['flowstone', 'typescript'])

/** What npm takes: lower case, and few marks. */
function packageName(folder: string): string {
  const name = folder
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
  // npm refuses to install a package into one of the same name.
  return name === '' || INSTALLED.has(name) ? 'my-pipeline' : name
}
