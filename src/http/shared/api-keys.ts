/**
 * API keys: who may start and read runs. The configuration has the SHA-256 of each key. A key is
 * random, so its hash needs no salt and no slow function: nobody can guess what it is of.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { InvalidError } from '../../../streams/errors.ts'
import { shown } from '../../../streams/shown.ts'
import { parseDate } from '../../options/date.ts'
import { refuseUnknown } from '../../options/unknown.ts'

/**
 * What an API key may be used for. `read`: see runs, and all else that the API shows. `start`:
 * start runs. `operate`: cancel, retry, answer, pause. `administer`: what others notice, such as to
 * empty a limit.
 */
export type ApiKeyAction = 'start' | 'read' | 'operate' | 'administer'

/** What keys of people are mostly good for: `viewer` reads, `operator` acts, `admin` may all. */
export type ApiKeyRole = 'viewer' | 'operator' | 'admin'

/** A key whose holder may start and read runs: `flowstone http key` makes one. */
export interface ApiKey {
  /**
   * Who has it: 1 to 64 of A-Z a-z 0-9 _ -. Two keys of the same id are of the same client, such as
   * an old one and a new one: they share idempotency keys and the rate limit.
   */
  readonly id: string
  /** SHA-256 of the key, as 64 hex digits. */
  readonly hash: string
  /** For which assets: `'orders/invoice'`; `'orders/*'` for all of a pipeline. */
  readonly assets: readonly string[]
  /** Default: `start` and `read`. */
  readonly may?: readonly ApiKeyAction[]
  /** In place of `may`: all that this role may. */
  readonly role?: ApiKeyRole
  /** From then on it is unknown: a date, or its ISO text. Default: never. */
  readonly expires?: Date | string
}

/** A key that was found. */
export interface KnownKey {
  readonly id: string
  may(action: ApiKeyAction): boolean
  covers(pipeline: string, asset: string): boolean
  /** Whether it is for all assets of all pipelines. */
  readonly seesAll: boolean
}

interface CheckedKey extends KnownKey {
  readonly hash: Buffer
  readonly expiresMs: number
}

const OPTIONS = ['id', 'hash', 'assets', 'may', 'role', 'expires'] as const satisfies readonly (keyof ApiKey)[]
const ACTIONS: readonly string[] = ['start', 'read', 'operate', 'administer'] satisfies ApiKeyAction[]
export const ROLES: Readonly<Record<ApiKeyRole, readonly ApiKeyAction[]>> = {
  viewer: ['read'],
  operator: ['read', 'start', 'operate'],
  admin: ['read', 'start', 'operate', 'administer'],
}
const KEY_BYTES = 32
/** Says what it is, to whoever finds it where it should not be. */
const PREFIX = 'fsk_'
const PATTERN = /^(\*|[A-Za-z0-9_-]{1,128})\/(\*|[A-Za-z0-9_-]{1,128})$/
/**
 * As RFC 6750 has it. Shorter than 32 bytes of base64 no key is: whoever hashed a password is
 * refused.
 */
const BEARER = /^Bearer +([A-Za-z0-9._~+/-]{43,512}=*) *$/i

/** A new key, and what the configuration has of it. */
export function newApiKey(): { readonly key: string; readonly hash: string } {
  const key = `${PREFIX}${randomBytes(KEY_BYTES).toString('base64url')}`
  return { key, hash: sha256(key).toString('hex') }
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

export class ApiKeys {
  readonly #keys: readonly CheckedKey[]

  /** Throws InvalidError that names the key and its field. */
  constructor(keys: readonly ApiKey[]) {
    if (!Array.isArray(keys) || keys.length === 0)
      throw new InvalidError('apiKeys must be a list of at least one key: flowstone http key makes one')
    this.#keys = keys.map((key, at) => checkKey(`apiKeys[${at}]`, key))
    if (new Set(this.#keys.map(({ hash }) => hash.toString('hex'))).size < keys.length)
      throw new InvalidError('apiKeys: two have the same hash; give each client a key of its own')
  }

  /** The key of the header Authorization. Each is compared, in constant time. */
  find(authorization: string | null, nowMs: number): KnownKey | undefined {
    const [, given] = BEARER.exec(authorization ?? '') ?? []
    if (given === undefined) return undefined
    const hash = sha256(given)
    let found: CheckedKey | undefined
    for (const key of this.#keys) if (timingSafeEqual(key.hash, hash)) found = key
    return found && nowMs < found.expiresMs ? found : undefined
  }
}

function checkKey(at: string, key: ApiKey): CheckedKey {
  refuseUnknown(at, key, OPTIONS)
  const { id, hash, assets, role, expires } = key
  const may = key.may ?? (role === undefined ? ['start', 'read'] : rolesActions(`${at} (${id})`, role))
  if (typeof id !== 'string' || !/^[A-Za-z0-9_-]{1,64}$/.test(id))
    throw new InvalidError(`${at}: id must be 1 to 64 of A-Z a-z 0-9 _ -, got ${shown(id)}`)
  // Not shown: it may be the key itself.
  if (typeof hash !== 'string' || !/^[0-9a-f]{64}$/i.test(hash))
    throw new InvalidError(`${at} (${id}): hash must be the SHA-256 of the key as 64 hex digits, and not the key`)
  if (!Array.isArray(assets) || assets.length === 0 || assets.some((one) => !PATTERN.test(String(one))))
    throw new InvalidError(
      `${at} (${id}): assets must be a list of names such as 'orders/invoice' or 'orders/*', got ${shown(assets)}`,
    )
  if (!Array.isArray(may) || may.length === 0 || may.some((one) => !ACTIONS.includes(one)))
    throw new InvalidError(`${at} (${id}): may must be a list of ${ACTIONS.join(', ')}, got ${shown(may)}`)
  if (key.may !== undefined && role !== undefined) throw new InvalidError(`${at} (${id}): give role or may, not both`)
  const expiresMs = expires === undefined ? Number.POSITIVE_INFINITY : dateOf(expires)
  if (Number.isNaN(expiresMs))
    throw new InvalidError(`${at} (${id}): expires must be a date such as '2027-01-31', got ${shown(expires)}`)
  const patterns = assets.map((one) => one.split('/'))
  return {
    id,
    hash: Buffer.from(hash, 'hex'),
    expiresMs,
    may: (action) => may.includes(action),
    covers: (pipeline, asset) =>
      patterns.some(([ofPipeline, ofAsset]) => fits(ofPipeline, pipeline) && fits(ofAsset, asset)),
    seesAll: assets.includes('*/*'),
  }
}

/** Throws InvalidError for what is no role. */
export function rolesActions(at: string, role: ApiKeyRole): readonly ApiKeyAction[] {
  if (Object.hasOwn(ROLES, role)) return ROLES[role]
  throw new InvalidError(`${at}: role must be one of ${Object.keys(ROLES).join(', ')}, got ${shown(role)}`)
}

function fits(pattern: string | undefined, name: string): boolean {
  return pattern === '*' || pattern === name
}

/** NaN for what is no date. */
function dateOf(expires: Date | string): number {
  if (expires instanceof Date) return expires.getTime()
  return typeof expires === 'string' ? (parseDate(expires) ?? Number.NaN) : Number.NaN
}
