// Makes a clone ready to run: dependencies, and a nats-server. Silent when nothing is missing.
//
//   node scripts/setup.mjs [folder with a package of its own ...]
//
// Plain JavaScript that Node 20 understands and that needs no dependency, because it runs before
// there are any. The rest of the project runs on the Node that comes as a dependency (package
// `node`). It speaks on stderr only: `npm run bench -- --json` promises that stdout holds nothing
// but results.

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

for (const folder of ['.', ...process.argv.slice(2)]) installDependencies(folder)
ensureServer()

function installDependencies(folder) {
  const path = join(root, folder)
  if (!existsSync(path)) fail(`there is no folder ${folder}`)
  if (!existsSync(join(path, 'package-lock.json'))) return // It has no dependencies of its own.
  if (isInstalled(path)) return
  say(`installing dependencies${folder === '.' ? '' : ` of ${folder}`} (npm ci)`)
  const { command, args, shell } = npm()
  const result = spawnSync(command, [...args, 'ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: path,
    stdio: ['ignore', 2, 2],
    shell,
  })
  if (result.status !== 0) fail(`npm ci failed in ${path}`)
}

/**
 * npm notes what it has put into node_modules, as the last step of an installation. Comparing that
 * with the lock file finds what is missing, outdated or half done, however it came there.
 */
function isInstalled(path) {
  const wanted = readLock(join(path, 'package-lock.json'))
  const present = readLock(join(path, 'node_modules', '.package-lock.json'))
  if (!wanted || !present) return false
  return Object.entries(wanted).every(([name, entry]) => {
    if (name === '') return true // The project itself.
    const installed = present[name]
    if (!installed) return entry.optional === true || entry.devOptional === true || entry.peer === true
    return installed.version === entry.version
  })
}

function readLock(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8')).packages
  } catch {
    return undefined
  }
}

/** The npm that runs this script, if one does. By itself `npm` is a shell script on Windows. */
function npm() {
  const path = process.env.npm_execpath
  if (path && /npm-cli\.c?js$/.test(path)) return { command: process.execPath, args: [path], shell: false }
  return { command: 'npm', args: [], shell: process.platform === 'win32' }
}

/** So that a download happens here and says so, and not in the middle of something. */
function ensureServer() {
  const tests = process.env.FLOWSTONE_TEST_NATS
  // Another server is going to be used.
  if (process.env.NATS_URL || (tests && tests !== 'binary')) return
  const node = join(root, 'node_modules', 'node', 'bin', process.platform === 'win32' ? 'node.exe' : 'node')
  const result = spawnSync(existsSync(node) ? node : process.execPath, [join(root, 'scripts', 'ensure-server.ts')], {
    stdio: ['ignore', 2, 2],
  })
  if (result.status !== 0) process.exit(1)
}

function say(line) {
  process.stderr.write(`flowstone: ${line}\n`)
}

function fail(line) {
  say(line)
  process.exit(1)
}
