/**
 * What keeps other sites from answering in a person's name. The address itself is the secret, so
 * whoever can send a forged answer could as well send a real one. One case is left: a browser that
 * was made to send what its user did not mean. Two checks cover it:
 *
 * - A request that a browser marks as coming from another site is refused, whatever it holds.
 * - A form needs the nonce of a page of this very gate. It is derived from the token: no state, the
 *   same for every process, and worth nothing elsewhere.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { HttpProblem } from '../shared/problem.ts'

/** The field that tells an answer of the page from a sender's own form. */
export const NONCE_FIELD = 'flowstone-form'
/** A page may stay open over night, and not for ever. */
const NONCE_LIFE_MS = 24 * 3_600_000

export function newNonce(token: string, nowMs: number): string {
  const head = `${Math.floor(nowMs / 1000).toString(36)}.${randomBytes(9).toString('base64url')}`
  return `${head}.${seal(token, head)}`
}

/**
 * Throws 403 unless `nonce` was made for this token, and not too long ago. Clocks of several
 * servers may differ by a minute.
 */
export function checkNonce(token: string, nonce: string, nowMs: number): void {
  const cut = nonce.lastIndexOf('.')
  const head = nonce.slice(0, Math.max(0, cut))
  const given = Buffer.from(nonce.slice(cut + 1))
  const wanted = Buffer.from(seal(token, head))
  const ageMs = nowMs - Number.parseInt(head.split('.')[0] ?? '', 36) * 1000
  const right = given.length === wanted.length && timingSafeEqual(given, wanted)
  if (!right || !(ageMs <= NONCE_LIFE_MS && ageMs > -60_000)) throw new HttpProblem('form_expired')
}

/**
 * Whether a browser sent it, and if so from a page of this server: throws 403 for pages of others.
 * `origin`: ours, as it is seen from outside.
 */
export function checkBrowser(request: Request, origin: string | undefined): { readonly browser: boolean } {
  const site = request.headers.get('sec-fetch-site')
  const from = request.headers.get('origin')
  if (site === null && from === null) return { browser: false }
  if (site !== null && site !== 'same-origin') throw new HttpProblem('cross_site')
  // Our page sends no referrer, so browsers write `null` for its origin; what they say of the site,
  // or else the nonce, decides then.
  if (
    from !== null &&
    from !== 'null' &&
    hostOf(from) !== (origin === undefined ? hostHeader(request) : hostOf(origin))
  )
    throw new HttpProblem('cross_site')
  return { browser: true }
}

function seal(token: string, head: string): string {
  return createHmac('sha256', token).update(`flowstone-form-v1\0${head}`).digest('base64url')
}

function hostOf(origin: string): string {
  return URL.canParse(origin) ? new URL(origin).host : ''
}

/** The scheme is not compared: in front of this there may be a proxy that speaks TLS. */
function hostHeader(request: Request): string {
  return new URL(request.url).host
}
