/**
 * Tokens of signal gates. The holder of a token may answer the gate that it names; making one takes
 * a secret.
 *
 *     v1.<key id>.<base64url of the gate's id>.<base64url of HMAC-SHA-256 (RFC 2104)>
 *     signed: "flowstone-gate-v1" NUL <key id> NUL <gate id>, by the secret of that key id
 *
 * There is no time in a token. The facts of a gate decide whether it still waits. So a deadline
 * that is moved (a retried timeout, an extension) does not invalidate the token. A token is never
 * stored, only its hash; a process with the secret derives the token again.
 */

import { createHmac, createSecretKey, hash, type KeyObject, timingSafeEqual } from 'node:crypto'
import { FlowStoneError, InvalidError, SignalRejectedError } from '../../streams/errors.ts'
import { parseGateId } from '../../streams/ids.ts'
import { checkText } from '../../streams/text.ts'

/** A secret that tokens of gates are signed with. */
export interface GateSecret {
  /** Stands in the tokens it signs: 1 to 32 characters of A-Z a-z 0-9 _ -. */
  readonly id: string
  /**
   * At least 32 bytes, as text (counted in UTF-8) or bytes. Make one with `openssl rand -base64
   * 32`.
   */
  readonly secret: string | Uint8Array
}

export const NO_GATE_SECRET = 'no_gate_secret'

const VERSION = 'v1'
export const SECRET_MIN_BYTES = 32
const SECRETS_MAX = 16
const KEY_ID = /^[A-Za-z0-9_-]{1,32}$/
const TOKEN_MAX = 1024
const SIGNATURE_BYTES = 32

/**
 * The secrets in force: the first signs, all of them verify. So a new one is put in front, and the
 * old one left until its gates have ended.
 */
export class TokenKeys {
  readonly #keys = new Map<string, KeyObject>()
  readonly #signing: string | undefined

  /**
   * Throws InvalidError for a secret that is too short, a key id that is no name, or two secrets of
   * one id.
   */
  constructor(secrets: readonly GateSecret[]) {
    if (!Array.isArray(secrets)) throw new InvalidError('gates.secrets must be a list of { id, secret }')
    if (secrets.length > SECRETS_MAX)
      throw new InvalidError(`gates.secrets: at most ${SECRETS_MAX} secrets, got ${secrets.length}`)
    for (const [i, given] of secrets.entries()) {
      const at = `gates.secrets[${i}]`
      if (typeof given !== 'object' || given === null) throw new InvalidError(`${at} must be { id, secret }`)
      const { id, secret }: GateSecret = given
      if (typeof id !== 'string' || !KEY_ID.test(id))
        throw new InvalidError(`${at}.id must be 1 to 32 characters of A-Z a-z 0-9 _ -`)
      if (this.#keys.has(id)) throw new InvalidError(`${at}: there are two secrets with id ${id}`)
      const bytes = typeof secret === 'string' ? new TextEncoder().encode(secret) : secret
      if (!(bytes instanceof Uint8Array) || bytes.length < SECRET_MIN_BYTES) {
        throw new InvalidError(
          `${at}.secret must be at least ${SECRET_MIN_BYTES} bytes; make one with: openssl rand -base64 32`,
        )
      }
      this.#keys.set(id, createSecretKey(bytes))
    }
    this.#signing = secrets[0]?.id
  }

  /** Ids of all; the first signs. */
  get ids(): string[] {
    return [...this.#keys.keys()]
  }

  /**
   * The key id that signs now. Throws `no_gate_secret` where none was given: there is no default
   * that anybody could know.
   */
  get signing(): string {
    if (this.#signing !== undefined) return this.#signing
    throw new FlowStoneError(
      NO_GATE_SECRET,
      'signal gates need a secret that their tokens are signed with: connect({ gates: { secrets: [{ id, secret }] } }), or FLOWSTONE_GATE_SECRETS=<id>:<secret>',
    )
  }

  /**
   * Throws `unknown_gate_secret` when the secret of that key id is not here: another process may
   * have it, so trying again may help.
   */
  sign(gate: string, keyId = this.signing): string {
    const signature = this.#signature(gate, keyId)
    if (!signature)
      throw new FlowStoneError(
        'unknown_gate_secret',
        `the secret ${keyId} that signed the token of gate ${gate} is not among gates.secrets of this process`,
      )
    return `${VERSION}.${keyId}.${Buffer.from(gate).toString('base64url')}.${signature.toString('base64url')}`
  }

  /**
   * The gate that a token names. Throws SignalRejectedError: `malformed_token`, or
   * `invalid_signature`.
   */
  verify(token: string): string {
    const parts = typeof token === 'string' && token.length <= TOKEN_MAX ? token.split('.') : []
    const [version, keyId = '', gate = '', signature = ''] = parts
    const id = canonical(gate)
    const given = canonical(signature)
    if (parts.length !== 4 || version !== VERSION || !KEY_ID.test(keyId) || !id || given?.length !== SIGNATURE_BYTES)
      throw new SignalRejectedError('malformed_token', 'this is no token of a signal gate; was it copied whole?')
    const expected = this.#signature(id.toString('utf8'), keyId)
    if (!expected || !timingSafeEqual(expected, given))
      throw new SignalRejectedError('invalid_signature', 'the signature of this token is not valid here')
    return id.toString('utf8')
  }

  #signature(gate: string, keyId: string): Buffer | undefined {
    const key = this.#keys.get(keyId)
    return key && createHmac('sha256', key).update(`flowstone-gate-${VERSION}\0${keyId}\0${gate}`).digest()
  }
}

/** The gate that a token names, whoever made the token. Undefined where that is no gate's id. */
export function gateNamedIn(token: string): string | undefined {
  const id = typeof token === 'string' && token.length <= TOKEN_MAX ? canonical(token.split('.')[2] ?? '') : undefined
  try {
    if (!id) return undefined
    const { run, asset, gate } = parseGateId(id.toString('utf8'))
    return `${run}.${asset}.${gate}`
  } catch {
    return undefined
  }
}

/**
 * Only the one text that stands for its bytes: a bit that base64url does not use must not make a
 * second valid token.
 */
function canonical(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.length > 0 && bytes.toString('base64url') === text ? bytes : undefined
}

/**
 * `id:secret,id:secret`, as FLOWSTONE_GATE_SECRETS has it. Throws InvalidError without showing a
 * secret.
 */
export function parseSecrets(text: string): GateSecret[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map((part) => {
      const colon = part.indexOf(':')
      if (colon < 1) throw new InvalidError('FLOWSTONE_GATE_SECRETS must be <id>:<secret>, several separated by commas')
      return { id: part.slice(0, colon), secret: part.slice(colon + 1) }
    })
}

/** Throws InvalidError for what no gate can have been named. */
export function hashOfCorrelationKey(correlationKey: string): string {
  if (typeof correlationKey !== 'string' || correlationKey === '' || Buffer.byteLength(correlationKey) > TOKEN_MAX)
    throw new InvalidError(`a correlation key must be text of 1 to ${TOKEN_MAX} bytes`)
  return hashOfToken(checkText('correlation key', correlationKey))
}

/** SHA-256 as hex: what is kept of tokens and of correlation keys. */
export function hashOfToken(token: string): string {
  return hash('sha256', token, 'hex')
}
