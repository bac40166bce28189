/** `flowstone init`: a project that runs, with a test. */
import { lstatSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { InvalidError } from '../../../streams/errors.ts'
import { outputOf } from '../output.ts'
import { version } from '../version.ts'
import { filesOf } from './files.ts'

export function init(folder: string, { json }: { readonly json?: boolean }): void {
  if (folder.trim() === '')
    throw new InvalidError('init: the name of the folder is empty; this folder is . (flowstone init .)')
  const dir = resolve(folder)
  const file = fileAbove(dir)
  if (file !== undefined) throw new InvalidError(`init: ${file} is a file and no folder: name another folder`)
  const files = filesOf({ name: packageName(basename(dir)), version: version() })
  const present = Object.keys(files).filter((name) => isThere(join(dir, name)))
  if (present.length > 0)
    throw new InvalidError(
      `init overwrites nothing, and ${dir} has ${present.join(', ')}: name an empty or a new folder`,
    )
  mkdirSync(dir, { recursive: true })
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text, { flag: 'wx' })
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

/** Also a link that leads nowhere. */
function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined
}

/** A file where a folder should be: the path itself, or one above it. */
function fileAbove(path: string): string | undefined {
  const above = dirname(path)
  const file = above === path ? undefined : fileAbove(above)
  if (file !== undefined || !isThere(path)) return file
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ? undefined : path
}

const INSTALLED: ReadonlySet<string> = new Set(['flowstone', 'typescript'])

/** What npm takes: lower case, no accents, and few marks. */
function packageName(folder: string): string {
  const name = folder
    .normalize('NFKD')
    .replaceAll(/\p{M}/gu, '')
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
  // npm refuses to install a package into one of the same name.
  return name === '' || INSTALLED.has(name) ? 'my-pipeline' : name
}
