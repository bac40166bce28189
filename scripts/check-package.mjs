// Checks the package as a user gets it: packs it, installs the tarball into an empty project,
// imports it with Node, and type-checks a program that uses it. Then it makes a project with
// `flowstone init`, runs its test, and changes its code while it runs. Run by `npm run
// check:package`, after the build.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

/**
 * What can be imported, and from where: all of it, and nothing else. A new export of the package is
 * added here too.
 */
const EXPORTS = {
  flowstone: [
    'CancelledError',
    'ConflictError',
    'FlowStoneError',
    'InvalidError',
    'RateLimitedError',
    'RetryableError',
    'RunFailedError',
    'SignalRejectedError',
    'TELEMETRY_CHANNELS',
    'TerminalError',
    'TimeoutError',
    'asset',
    'canonicalKey',
    'compareKeys',
    'connect',
    'input',
    'memoryIo',
    'normalizeKey',
    'pipeline',
    'sameKey',
    'scatterKeyHash',
    'schedule',
    'sensor',
    'subscription',
    'verifyArchive',
  ],
  'flowstone/http': ['apiHandler', 'gateHandler', 'runHandler', 'serveGates', 'serveHttp', 'serveMetrics'],
  'flowstone/items': [
    'ItemReader',
    'batch',
    'itemReader',
    'itemResults',
    'readCsv',
    'readJsonLines',
    'readLines',
    'readParquet',
    'readPostgres',
    'readS3Objects',
    's3Object',
    'settleItems',
  ],
  'flowstone/otel': ['instrument'],
  'flowstone/server': ['RELEASE_VERSION', 'ensureNatsServer', 'startCluster', 'startServer'],
}

/**
 * A user's program. It must pass the type check as it is, so each @ts-expect-error must be an
 * error.
 */
const PROGRAM = `
import { asset, connect, pipeline } from 'flowstone'
import { type GateHandler, gateHandler, type VerifiedSender } from 'flowstone/http'
import { batch, type ItemReader, readLines, readS3Objects, type S3Item, settleItems } from 'flowstone/items'
import { type Instrumentation, instrument } from 'flowstone/otel'
import { type RunningServer, type ServerOptions, startServer } from 'flowstone/server'

export const uses = [asset, connect, pipeline]

const ci: VerifiedSender = { scheme: 'github', secret: 'sixteen characters', correlationKey: () => undefined }
export async function handler(): Promise<GateHandler> {
  return gateHandler(await connect(), { verified: { ci } })
}

const options: ServerOptions = { dir: '.flowstone', port: 0, syncInterval: 'always' }
export async function url(): Promise<string> {
  await using server: RunningServer = await startServer(options)
  return server.url
}
export const spans = (): Instrumentation => instrument({ sampleInstances: 0.01 })
// None of the packages that only some readers need is installed here, and the types need none.
export const objects: ItemReader<S3Item> = readS3Objects({ bucket: 'b' })
export const lines = asset('lines', {
  scatter: () => batch(readLines('lines.txt'), { maxItems: 10 }),
  execute: ({ scatterKey }) => settleItems(scatterKey.items, (line) => line.length),
})
// @ts-expect-error A port is a number.
export const wrong: ServerOptions = { port: '4222' }
`

/**
 * A program that asks a server, so that the client and its sockets are in it. It also reads with a
 * package that is not there.
 */
const BUNDLED = `
import { asset, connect, pipeline } from 'flowstone'
import { gateHandler } from 'flowstone/http'
import { readPostgres } from 'flowstone/items'
import { startServer } from 'flowstone/server'
async function main() {
  console.log(pipeline('p', [asset('a', { execute: () => 1 })]).name, typeof gateHandler, typeof startServer)
  await connect({ servers: 'nats://127.0.0.1:1' }).catch((error) => console.log(error.message))
  const rows = readPostgres({ query: 'SELECT 1 AS a', key: 'a' })[Symbol.asyncIterator]()
  await rows.next().catch((error) => console.log(error.message))
}
main()
`

/** What must not be in the tarball: sources are not shipped, so neither are tests and tools. */
const UNWANTED = /^(src|streams|projections|test|bench|scripts|examples)\//

/** Of the web console, gzipped, all pages together. */
const CONSOLE_MAX_BYTES = 250 * 1024

/** The server of the console finds its files: as Node loads it, and as a bundler would. */
const CONSOLE = `
import { serveHttp } from 'flowstone/http'
const flow = { gates: {}, inspect: {}, runs() {}, request() {}, run() {}, scatter: {}, schedules: {} }
const server = await serveHttp(flow, { port: 0, console: true })
const page = await fetch(server.url)
const [, script] = /src="([^"]+)"/.exec(await page.text())
console.log(page.status, (await fetch(new URL(script, server.url + '/'))).status)
await server.close()
`

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const scratch = mkdtempSync(join(tmpdir(), 'flowstone-package-'))
try {
  const tarball = pack()
  const project = install(tarball)
  checkExports(project)
  checkOptional(project)
  checkRequire(project)
  checkConsole(project)
  await checkBundles(project)
  checkTypes(project)
  checkCommand(project)
  await checkInit(project, tarball)
  console.log(
    `package: ${Object.keys(EXPORTS).join(', ')} can be imported, their types are right, and a new project runs`,
  )
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

function pack() {
  const [packed] = JSON.parse(npm(root, ['pack', '--json', '--ignore-scripts', '--pack-destination', scratch]))
  const unwanted = packed.files.map((file) => file.path).filter((path) => UNWANTED.test(path))
  if (unwanted.length > 0) fail(`these files do not belong into the package: ${unwanted.join(', ')}`)
  return join(scratch, packed.filename)
}

function install(tarball) {
  const project = join(scratch, 'project')
  mkdirSync(project)
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }))
  const own = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  // With flowstone/otel comes its package: its types are those of that.
  const others = ['@types/node', '@opentelemetry/api'].map((name) => `${name}@${own.devDependencies[name]}`)
  npm(project, ['install', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error', tarball, ...others])
  return project
}

function checkExports(project) {
  for (const [specifier, expected] of Object.entries(EXPORTS)) {
    const program = `console.log(JSON.stringify(Object.keys(await import('${specifier}')).sort()))`
    const actual = JSON.parse(node(project, ['--input-type=module', '-e', program]))
    const missing = expected.filter((name) => !actual.includes(name))
    const surplus = actual.filter((name) => !expected.includes(name))
    if (missing.length > 0) fail(`${specifier} does not export ${missing.join(', ')}`)
    if (surplus.length > 0)
      fail(`${specifier} exports ${surplus.join(', ')}, which scripts/check-package.mjs does not expect`)
  }
}

/**
 * Packages that only some readers need are not installed with ours. Such a reader says what to
 * install when it begins.
 */
function checkOptional(project) {
  const readers = {
    'csv-parse': "readCsv('package.json')",
    hyparquet: "readParquet('package.json')",
    '@aws-sdk/client-s3': "readS3Objects({ bucket: 'b' })",
    pg: "readPostgres({ query: 'SELECT 1 AS a', key: 'a' })",
  }
  for (const [name, reader] of Object.entries(readers)) {
    const said = `await import('flowstone/items').then(({ readCsv, readParquet, readS3Objects, readPostgres }) =>
      ${reader}[Symbol.asyncIterator]().next().then(() => console.log('read'), (error) => console.log(error.message)))`
    const message = node(project, ['--input-type=module', '-e', said])
    if (!message.includes(`which is not installed here: npm install ${name}`))
      fail(`${reader} without ${name} says: ${message}`)
  }
}

/** CommonJS takes it in as it is. */
function checkRequire(project) {
  for (const [specifier, expected] of Object.entries(EXPORTS)) {
    const program = `console.log(JSON.stringify(Object.keys(require('${specifier}'))))`
    const actual = JSON.parse(node(project, ['--input-type=commonjs', '-e', program]))
    const missing = expected.filter((name) => !actual.includes(name))
    if (missing.length > 0) fail(`require('${specifier}') does not bring ${missing.join(', ')}`)
  }
}

/** All of its files are there, are small, and are served. */
function checkConsole(project) {
  const folder = join(project, 'node_modules', 'flowstone', 'dist', 'console')
  const files = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8'))
  const size = files.reduce((sum, { gzipped }) => sum + gzipped, 0)
  if (size > CONSOLE_MAX_BYTES) fail(`the console has ${size} bytes gzipped; ${CONSOLE_MAX_BYTES} are allowed`)
  for (const { name } of files) {
    const outside = readFileSync(join(folder, name), 'utf8').match(/\bhttps?:\/\/(?!www\.w3\.org\/)[\w.-]+/)
    if (outside) fail(`the console names another host: ${outside[0]} in ${name}`)
  }
  for (const conditions of [[], ['--conditions=module']]) {
    const said = node(project, [...conditions, '--input-type=module', '-e', CONSOLE]).trim()
    if (said !== '200 200') fail(`the console is not served with ${conditions[0] ?? 'no condition'}: ${said}`)
  }
}

/** Bundled without a banner and optional packages, and run where there is no node_modules. */
async function checkBundles(project) {
  writeFileSync(join(project, 'bundled.js'), BUNDLED)
  const alone = join(scratch, 'alone')
  mkdirSync(alone)
  for (const [format, extension] of [
    ['esm', 'mjs'],
    ['cjs', 'cjs'],
  ]) {
    const outfile = join(alone, `bundled.${extension}`)
    const { warnings } = await build({
      entryPoints: [join(project, 'bundled.js')],
      bundle: true,
      platform: 'node',
      format,
      outfile,
      logLevel: 'silent',
    })
    if (warnings.length > 0) fail(`a bundle in ${format}: ${warnings[0].text}`)
    const said = node(alone, [outfile])
    for (const part of [
      'p function function',
      'no nats-server at nats://127.0.0.1:1 (connection refused)',
      'npm install pg',
    ])
      if (!said.includes(part)) fail(`a bundle in ${format} does not say ${JSON.stringify(part)}, but: ${said}`)
  }
}

function checkTypes(project) {
  writeFileSync(join(project, 'program.ts'), PROGRAM)
  const compilerOptions = {
    module: 'nodenext',
    target: 'es2024',
    lib: ['es2024', 'esnext.disposable'],
    types: ['node'],
    strict: true,
    // Declarations are checked too (no skipLibCheck), as a user's compiler may do.
    noEmit: true,
  }
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['program.ts'] }))
  node(project, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', '.'])
}

/** The command as npm puts it into a project, and what it says its version is. */
function checkCommand(project) {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const said = npm(project, ['exec', '--offline', '--', 'flowstone', '--version']).trim()
  if (said !== version) fail(`the command flowstone says that its version is ${said}, not ${version}`)
}

/** What `flowstone init` makes: its test passes, its types are right, and `dev` takes an edit. */
async function checkInit(project, tarball) {
  const folder = join(scratch, 'shop')
  npm(project, ['exec', '--offline', '--', 'flowstone', 'init', folder])
  npm(folder, ['install', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error', tarball])
  npm(folder, ['test'])
  npm(folder, ['run', 'types'])
  const main = join(folder, 'node_modules', 'flowstone', 'dist', 'src', 'cli', 'main.js')
  const dev = spawn(process.execPath, [main, 'dev', 'pipeline.ts', '--no-open', '--http-port', '0'], { cwd: folder })
  const ended = once(dev, 'close')
  let said = ''
  for (const stream of [dev.stdout, dev.stderr]) stream.on('data', (data) => (said += data))
  try {
    const workers = async (count) => {
      while (said.split(/worker-\w+ active/).length <= count) {
        await Promise.race([once(dev.stdout, 'data'), ended])
        if (dev.exitCode !== null) fail(`flowstone dev ended in a new project:\n${said}`)
      }
    }
    await workers(1)
    const pipeline = join(folder, 'pipeline.ts')
    const before = node(folder, [main, 'run', 'report']).trim()
    writeFileSync(pipeline, readFileSync(pipeline, 'utf8').replace('sunny', 'rainy'))
    await workers(2)
    const after = node(folder, [main, 'run', 'report']).trim()
    if (!before.includes('Lima: sunny') || after !== before.replaceAll('sunny', 'rainy'))
      fail(`a new project makes ${before}, and after an edit ${after}:\n${said}`)
  } finally {
    dev.kill('SIGTERM')
    await ended
  }
}

function node(cwd, args) {
  return execute(process.execPath, args, { cwd })
}

function npm(cwd, args) {
  const path = process.env.npm_execpath
  if (path && /npm-cli\.c?js$/.test(path)) return execute(process.execPath, [path, ...args], { cwd })
  return execute('npm', args, { cwd, shell: process.platform === 'win32' })
}

function execute(command, args, options) {
  try {
    return execFileSync(command, args, { ...options, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  } catch (error) {
    fail(`${command} ${args.join(' ')}\n${error.stdout ?? ''}${error.stderr ?? error.message}`)
  }
}

function fail(message) {
  console.error(`package: ${message}`)
  rmSync(scratch, { recursive: true, force: true })
  process.exit(1)
}
