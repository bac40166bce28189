/**
 * The web console: files that were built ahead, out of dist/console. All that it shows comes from
 * the API, with the key of whoever looks.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { FlowStoneError } from '../../streams/errors.ts'
import { methodNotAllowed } from './shared/limits.ts'
import { GUARD_HEADERS, HttpProblem, problemResponse } from './shared/problem.ts'

/** From `src/http`, `dist/src/http`, `dist/bundle/http` and `dist/bundle`. */
const PLACES = ['../../dist/console/', '../../console/', '../console/']
/** Above the folders of a bundle that a test has made. */
const LEVELS = 8
const ASSETS = '/assets/'
/** Assets have a hash of their content in their name. */
const FOREVER = 'public, max-age=31536000, immutable'
/** Styles of elements are set by code, which this allows, and not by markup. */
const CSP =
  "default-src 'self'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
  svg: 'image/svg+xml',
}

interface File {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly gzipped: Uint8Array<ArrayBuffer>
  readonly type: string
}

export type ConsoleHandler = (request: Request) => Response

/** Which paths of a server are for the console. */
export function isForConsole(path: string): boolean {
  return path === '/' || path.startsWith(ASSETS)
}

/**
 * The console at `/`, of a clone built when it is missing or old. Throws FlowStoneError
 * `no_console` where the files are not found.
 */
export async function consoleHandler(): Promise<ConsoleHandler> {
  const files = filesIn(await folderOf())
  return (request) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') return problemResponse(methodNotAllowed('GET, HEAD'))
    const { pathname } = new URL(request.url)
    const name = pathname === '/' ? 'index.html' : pathname.slice(1)
    const file = files.get(name)
    if (!file) return problemResponse(new HttpProblem('unknown_id', 'There is nothing at this address.'))
    const isZipped = /\bgzip\b/.test(request.headers.get('accept-encoding') ?? '')
    const body = isZipped ? file.gzipped : file.bytes
    return new Response(request.method === 'HEAD' ? null : body, {
      headers: {
        ...GUARD_HEADERS,
        'Content-Security-Policy': CSP,
        'Cache-Control': name === 'index.html' ? 'no-cache' : FOREVER,
        'Content-Type': file.type,
        'Content-Length': String(body.length),
        Vary: 'Accept-Encoding',
        ...(isZipped ? { 'Content-Encoding': 'gzip' } : {}),
      },
    })
  }
}

async function folderOf(): Promise<string> {
  // A bundle in CommonJS has no address.
  const here: string | undefined = import.meta.url
  // Sources run as they are only in a clone, where the build is at hand.
  if (here?.endsWith('/src/http/console.ts')) {
    const build: { buildConsole: () => Promise<string> } = await import(
      new URL('../../scripts/build-console.mjs', here).href
    )
    return await build.buildConsole()
  }
  const above = Array.from({ length: LEVELS }, (_, level) => `${'../'.repeat(level)}dist/console/`)
  const found = (here === undefined ? [] : [...PLACES, ...above])
    .map((place) => fileURLToPath(new URL(place, here)))
    .find((folder) => existsSync(join(folder, 'manifest.json')))
  if (found === undefined)
    throw new FlowStoneError(
      'no_console',
      'the files of the web console are not beside this code; do not bundle flowstone/http, or serve without console',
    )
  return found
}

/** All of them, in memory: they are small. Nothing that a request says is a path of the disk. */
function filesIn(folder: string): ReadonlyMap<string, File> {
  const manifest: { readonly name: string }[] = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8'))
  return new Map(
    manifest.map(({ name }) => {
      const bytes = new Uint8Array(readFileSync(join(folder, name)))
      const type = TYPES[name.slice(name.lastIndexOf('.') + 1)] ?? 'application/octet-stream'
      return [name, { bytes, gzipped: new Uint8Array(gzipSync(bytes)), type }]
    }),
  )
}
