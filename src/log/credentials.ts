/**
 * Where the server is, and the credentials of the client. In this order: the options, the addresses
 * themselves, the environment (with the names of the NATS command line), a context of the NATS
 * command line. Nothing of it is ever printed: addresses lose their user and password here, before
 * other code sees them.
 */
import { existsSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { type Authenticator, credsAuthenticator, jwtAuthenticator, nkeyAuthenticator, nkeys } from '@nats-io/nats-core'
import { InvalidError, messageOf } from '../../streams/errors.ts'
import { checkDomain } from '../../streams/jetstream.ts'

/** Whom the server takes this process for. Give one kind of them. */
export interface Credentials {
  readonly user?: string
  readonly password?: string
  readonly token?: string
  /**
   * A file with a JWT and its seed, as `nsc` and the NATS command line make it. It is read again at
   * each reconnect.
   */
  readonly creds?: string
  /** A file with the seed of an nkey. */
  readonly nkey?: string
  /**
   * Files for TLS. `ca`: whom to trust; `cert` and `key`: who this client is. `first`: TLS before
   * the server says anything.
   */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string; readonly first?: boolean }
  /** A context of the NATS command line (`nats context ls`), by name. */
  readonly context?: string
  /**
   * What the subjects begin with on which this process gets answers, for a user that may not
   * subscribe to `_INBOX.>`: `_INBOX_worker`. Default: NATS_INBOX_PREFIX, else the context's, else
   * `_INBOX`.
   */
  readonly inboxPrefix?: string
}

/** What the NATS client is given. */
export interface Reached {
  /** The JetStream domain, where one is named. */
  readonly domain: string | undefined
  readonly servers: string[]
  /** Whom the server will take this process for: a name, or the public part of an nkey. */
  readonly user: string | undefined
  readonly options: {
    readonly user?: string
    readonly pass?: string
    readonly token?: string
    readonly authenticator?: Authenticator
    readonly inboxPrefix?: string
    readonly tls?: {
      readonly caFile?: string
      readonly certFile?: string
      readonly keyFile?: string
      readonly handshakeFirst?: boolean
    }
  }
}

interface Wanted extends Omit<Credentials, 'context'> {
  readonly domain?: string
  readonly servers?: string | readonly string[]
  readonly userJwt?: string
}

type Env = Readonly<Record<string, string | undefined>>
const DEFAULT_SERVER = 'nats://127.0.0.1:4222'
/** Words, without wildcards. */
const INBOX_PREFIX = /^[^\s.*>]+(?:\.[^\s.*>]+)*$/

/**
 * Throws InvalidError, which names the option, for what cannot be, and for files that are not
 * there.
 */
export function reachOf(
  given: Credentials & { readonly servers?: string | readonly string[]; readonly domain?: string },
  env: Env,
): Reached {
  const context = given.context ?? (env.NATS_CONTEXT || undefined)
  const stored = context === undefined ? {} : contextOf(context, env)
  const fromEnv = wantedIn(env)
  const named = given.servers ?? fromEnv.servers ?? stored.servers ?? DEFAULT_SERVER
  const addresses = (typeof named === 'string' ? named.split(',') : [...named]).map((one) => one.trim()).filter(Boolean)
  if (addresses.length === 0) throw new InvalidError(`servers: name at least one, such as ${DEFAULT_SERVER}`)
  const parsed = addresses.map(addressOf)
  // An empty one is that of the server.
  const domain = given.domain ?? fromEnv.domain ?? stored.domain
  checkDomain(domain)
  const inboxPrefix = given.inboxPrefix ?? fromEnv.inboxPrefix ?? stored.inboxPrefix
  if (inboxPrefix !== undefined && !INBOX_PREFIX.test(inboxPrefix))
    throw new InvalidError(
      `inboxPrefix must be the start of a subject without wildcards, such as _INBOX_worker, got ${JSON.stringify(inboxPrefix)}`,
    )
  // One kind of identity from one place: a user of the environment and a key of a context do not
  // mix.
  const who = [given, loginOf(parsed), fromEnv, stored].find(saysWho) ?? {}
  const tls = { ...stored.tls, ...fromEnv.tls, ...given.tls }
  return {
    servers: parsed.map(({ address }) => address),
    domain,
    user: nameOf(who),
    options: {
      ...identityOf(who),
      ...(inboxPrefix === undefined ? {} : { inboxPrefix }),
      ...tlsOf(
        tls,
        parsed.some(({ isTls }) => isTls),
      ),
    },
  }
}

function saysWho({ user, password, token, creds, nkey, userJwt }: Wanted): boolean {
  return [user, password, token, creds, nkey, userJwt].some((one) => one !== undefined)
}

function wantedIn(env: Env): Wanted {
  const some = (name: string): string | undefined => env[name] || undefined
  const tls = { ca: some('NATS_CA'), cert: some('NATS_CERT'), key: some('NATS_KEY') }
  return defined({
    servers: some('NATS_URL'),
    user: some('NATS_USER'),
    password: some('NATS_PASSWORD'),
    token: some('NATS_TOKEN'),
    creds: some('NATS_CREDS'),
    nkey: some('NATS_NKEY'),
    domain: some('NATS_JS_DOMAIN'),
    inboxPrefix: some('NATS_INBOX_PREFIX'),
    tls: defined(tls),
  })
}

/** An address without its user and password. Its text is in no error: it may hold them. */
function addressOf(text: string): { address: string; isTls: boolean; login: Wanted } {
  const [, scheme = 'nats', rest = text] = /^([a-z]+):\/\/(.*)$/is.exec(text) ?? []
  if (!/^(nats|tls)$/i.test(scheme))
    throw new InvalidError(`servers: an address begins with nats:// or tls://, not ${scheme}://`)
  const at = rest.lastIndexOf('@')
  const place = rest.slice(at + 1)
  const host = place.replace(/\/.*$/, '')
  if (host === '' || !URL.canParse(`http://${host}`))
    throw new InvalidError(`servers: an address must be like nats://host:4222 or nats://user:password@host:4222`)
  const isTls = scheme.toLowerCase() === 'tls'
  const address = `${isTls ? 'tls' : 'nats'}://${host}`
  if (at < 0) return { address, isTls, login: {} }
  const [user = '', ...password] = rest.slice(0, at).split(':')
  const login =
    password.length === 0
      ? { token: unescaped(user) }
      : { user: unescaped(user), password: unescaped(password.join(':')) }
  return { address, isTls, login }
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    // A percent sign that escapes nothing is one.
    return text
  }
}

function loginOf(parsed: readonly { readonly login: Wanted }[]): Wanted {
  const logins = parsed.map(({ login }) => login).filter(saysWho)
  const [first = {}] = logins
  if (logins.some((other) => JSON.stringify(other) !== JSON.stringify(first)))
    throw new InvalidError(
      'servers: all addresses must name the same user; name it once, with the options user and password',
    )
  return first
}

function identityOf({ user, password, token, creds, nkey, userJwt }: Wanted): Reached['options'] {
  const kinds = { user, token, creds, nkey, userJwt }
  const named = Object.entries(kinds).flatMap(([kind, value]) => (value === undefined ? [] : [kind]))
  if (named.length > 1)
    throw new InvalidError(`credentials: ${named.join(' and ')} do not go together; name one of them`)
  if (password !== undefined && user === undefined) throw new InvalidError('credentials: a password needs a user')
  if (creds !== undefined) return { authenticator: credsAuthenticator(() => fileOf('creds', creds)) }
  if (nkey !== undefined) return { authenticator: nkeyAuthenticator(() => trimmed(fileOf('nkey', nkey))) }
  if (userJwt !== undefined) return { authenticator: jwtAuthenticator(userJwt) }
  if (token !== undefined) return { token }
  return user === undefined ? {} : { user, ...(password === undefined ? {} : { pass: password }) }
}

/** As the credentials have it. The server checks them, so it is true for whoever is connected. */
function nameOf({ user, creds, nkey, userJwt }: Wanted): string | undefined {
  try {
    if (nkey !== undefined) return nkeys.fromSeed(trimmed(fileOf('nkey', nkey))).getPublicKey()
    const jwt = userJwt ?? (creds === undefined ? undefined : jwtIn(new TextDecoder().decode(fileOf('creds', creds))))
    return jwt === undefined ? user : userInJwt(jwt)
  } catch {
    // Not read here: the authenticator says what is wrong with it.
    return user
  }
}

function jwtIn(creds: string): string | undefined {
  return /-{3,}BEGIN NATS USER JWT-{3,}\s+(\S+)/.exec(creds)?.[1]
}

/** Its name, which the account signed; else its key. */
function userInJwt(jwt: string): string | undefined {
  const claims: unknown = JSON.parse(Buffer.from(jwt.split('.')[1] ?? '', 'base64url').toString())
  const text = (field: string): string | undefined => {
    const value: unknown = typeof claims === 'object' && claims !== null ? Reflect.get(claims, field) : undefined
    return typeof value === 'string' && value !== '' ? value : undefined
  }
  return text('name') ?? text('sub')
}

function tlsOf(tls: NonNullable<Credentials['tls']>, isWanted: boolean): Pick<Reached['options'], 'tls'> {
  const { ca, cert, key, first } = tls
  if (!isWanted && ca === undefined && cert === undefined && key === undefined && first === undefined) return {}
  if ((cert === undefined) !== (key === undefined))
    throw new InvalidError('tls: cert and key go together; name both, or neither')
  const file = (field: string, path: string | undefined): string | undefined => {
    if (path !== undefined) fileOf(`tls.${field}`, path)
    return path === undefined ? undefined : expanded(path)
  }
  const files = { caFile: file('ca', ca), certFile: file('cert', cert), keyFile: file('key', key) }
  return { tls: defined({ ...files, handshakeFirst: first }) }
}

function fileOf(field: string, path: string): Uint8Array {
  try {
    return readFileSync(expanded(path))
  } catch (cause) {
    throw new InvalidError(`${field}: the file ${path} cannot be read (${messageOf(cause)})`, { cause })
  }
}

function trimmed(bytes: Uint8Array): Uint8Array {
  return new TextEncoder().encode(new TextDecoder().decode(bytes).trim())
}

function expanded(path: string): string {
  return path.startsWith('~/') ? join(homedir(), path.slice(2)) : path
}

/** As the NATS command line stores it. */
function contextOf(name: string, env: Env): Wanted {
  if (!/^[^/\\]+$/.test(name) || name === '.' || name === '..')
    throw new InvalidError(`context: ${JSON.stringify(name)} is no name of a context`)
  const folder = join(env.XDG_CONFIG_HOME || join(homedir(), '.config'), 'nats', 'context')
  const path = join(folder, `${name}.json`)
  if (!existsSync(path))
    throw new InvalidError(`context: there is no context ${name} in ${folder}; nats context ls shows those there are`)
  let stored: unknown
  try {
    stored = JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    throw new InvalidError(`context: the file of context ${name} is not JSON`)
  }
  const text = (field: string): string | undefined => {
    const value: unknown = typeof stored === 'object' && stored !== null ? Reflect.get(stored, field) : undefined
    return typeof value === 'string' && value !== '' ? value : undefined
  }
  for (const field of ['nsc', 'socks_proxy'])
    if (text(field) !== undefined)
      throw new InvalidError(
        `context: ${name} uses ${field}, which FlowStone does not know; name creds, or another context`,
      )
  const first = typeof stored === 'object' && stored !== null && Reflect.get(stored, 'tls_first') === true
  return defined({
    servers: text('url'),
    user: text('user'),
    password: text('password'),
    token: text('token'),
    creds: text('creds'),
    nkey: text('nkey'),
    userJwt: text('user_jwt'),
    inboxPrefix: text('inbox_prefix'),
    domain: text('jetstream_domain'),
    tls: defined({ ca: text('ca'), cert: text('cert'), key: text('key'), first: first || undefined }),
  })
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

/** Without what is undefined. */
function defined<T extends object>(values: T): Defined<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>
}
