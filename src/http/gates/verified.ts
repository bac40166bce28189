/**
 * Callbacks without a token: the sender is known by its own signature, and the gate by a
 * correlation key that is found in what it sent.
 */
import { createHash } from 'node:crypto'
import { FlowStoneError, InvalidError, messageOf } from '../../../streams/errors.ts'
import { type Duration, parseDuration } from '../../options/duration.ts'
import { refuseUnknown } from '../../options/unknown.ts'
import { type BodyKind, parseBody } from '../shared/body.ts'
import { accepted, HttpProblem, json } from '../shared/problem.ts'
import type { RequestContext, Sender } from '../shared/request-context.ts'
import { type CustomScheme, checkStandardSecret, SCHEMES, type SignatureScheme } from './signatures.ts'

/** A sender whose requests are signed: how, with what, and which gate they are for. */
export interface VerifiedSender {
  /** How it signs; or a function that checks it. */
  readonly scheme: SignatureScheme | CustomScheme
  /** What it signs with; several while they are rotated. At least 16 characters each. */
  readonly secret: string | readonly string[]
  /**
   * The correlation key of the gate that this is for (`ctx.openGate({ correlationKey })`), from
   * what was sent. undefined or null: it is for no gate; it is answered `ignored`, and that is all.
   */
  readonly correlationKey: (payload: unknown, headers: Headers) => string | null | undefined
  /** What the asset gets. Default: all that was sent. */
  readonly payload?: (payload: unknown, headers: Headers) => unknown
  /**
   * The same for every delivery of the same message. Default: the delivery's own id where the
   * scheme has one, else a hash of the body.
   */
  readonly idempotencyKey?: (payload: unknown, headers: Headers) => string | undefined
  /**
   * How far its clock and this one's may be apart, for schemes that sign the time. Default `'5m'`.
   */
  readonly tolerance?: Duration
  /**
   * Keeps a signal that comes before its gate is opened; see `gates.signalByCorrelationKey`.
   * Default: such a signal is 404.
   */
  readonly keepFor?: Duration
}

export interface CheckedSender extends Omit<VerifiedSender, 'secret' | 'tolerance' | 'keepFor'> {
  readonly name: string
  readonly secrets: readonly string[]
  readonly toleranceMs: number
  readonly keepForMs: number | undefined
}

interface Received {
  readonly sender: CheckedSender
  readonly kind: BodyKind
  readonly bytes: Uint8Array
  readonly request: Request
  readonly known: Sender
}

const SECRET_MIN = 16
/** With gates it is so much, and no gate can have another name. */
const CORRELATION_KEY_MAX_BYTES = 1024
const KEY_MAX = 512
/** As with gates: longer no signal is kept. */
const DAY_MS = 24 * 3_600_000
const OPTIONS = [
  'scheme',
  'secret',
  'correlationKey',
  'payload',
  'idempotencyKey',
  'tolerance',
  'keepFor',
] as const satisfies readonly (keyof VerifiedSender)[]

/** Throws InvalidError that names the sender and the option. */
export function checkSenders(senders: Readonly<Record<string, VerifiedSender>>): ReadonlyMap<string, CheckedSender> {
  if (typeof senders !== 'object' || senders === null)
    throw new InvalidError(`verified must be an object of senders by name, got ${JSON.stringify(senders)}`)
  return new Map(
    Object.entries(senders).map(([name, sender]) => {
      const at = `verified.${name}`
      if (!/^[A-Za-z0-9_-]{1,64}$/.test(name))
        throw new InvalidError(`verified: ${JSON.stringify(name)} must be 1 to 64 of A-Z a-z 0-9 _ -`)
      if (typeof sender !== 'object' || sender === null)
        throw new InvalidError(`${at} must be an object with scheme, secret and correlationKey`)
      refuseUnknown(at, sender, OPTIONS)
      const { scheme, secret, tolerance = '5m', keepFor, ...rest } = sender
      if (typeof scheme !== 'function' && !Object.hasOwn(SCHEMES, scheme))
        throw new InvalidError(
          `${at}: scheme must be ${Object.keys(SCHEMES).join(', ')} or a function, got ${JSON.stringify(scheme)}`,
        )
      const secrets = typeof secret === 'string' ? [secret] : secret
      if (
        !Array.isArray(secrets) ||
        secrets.length === 0 ||
        secrets.some((one) => typeof one !== 'string' || one.length < SECRET_MIN)
      )
        throw new InvalidError(`${at}: secret must be text of at least ${SECRET_MIN} characters, or a list of such`)
      if (scheme === 'standard') for (const one of secrets) checkStandardSecret(`${at}: secret`, one)
      if (typeof rest.correlationKey !== 'function')
        throw new InvalidError(`${at}: correlationKey must be a function that finds the gate's correlation key`)
      for (const option of ['payload', 'idempotencyKey'] as const)
        if (rest[option] !== undefined && typeof rest[option] !== 'function')
          throw new InvalidError(`${at}: ${option} must be a function, got ${typeof rest[option]}`)
      const checked: CheckedSender = {
        ...rest,
        name,
        scheme,
        secrets,
        toleranceMs: within(`${at}: tolerance`, tolerance),
        keepForMs: keepFor === undefined ? undefined : within(`${at}: keepFor`, keepFor),
      }
      return [name, checked]
    }),
  )
}

function within(field: string, duration: Duration): number {
  const ms = parseDuration(field, duration)
  if (ms > 0 && ms <= DAY_MS) return ms
  throw new InvalidError(`${field} must be more than 0 and at most 24 h, got ${JSON.stringify(duration)}`)
}

/** The signature first: nothing is parsed and nobody is asked before it holds. */
export async function verifiedSignal(
  rim: RequestContext,
  { sender, kind, bytes, request, known }: Received,
): Promise<Response> {
  const { headers } = request
  await checkSignature(sender, headers, bytes)
  const { value } = await parseBody(kind, bytes, headers.get('content-type') ?? '')
  const challenge = slackChallenge(sender, value)
  if (challenge !== undefined) return json({ challenge })
  const correlationKey = asked(sender, 'correlationKey', () => sender.correlationKey(value, headers))
  if (correlationKey === undefined || correlationKey === null) return json({ status: 'ignored' })
  if (typeof correlationKey !== 'string' || correlationKey === '')
    throw faulty(sender, 'correlationKey', 'brought no text')
  if (Buffer.byteLength(correlationKey) > CORRELATION_KEY_MAX_BYTES) throw new HttpProblem('not_found')
  const key =
    asked(sender, 'idempotencyKey', () => sender.idempotencyKey?.(value, headers)) ??
    deliveryId(sender, value, headers, bytes)
  if (typeof key !== 'string' || key.length > KEY_MAX)
    throw faulty(sender, 'idempotencyKey', `brought no text of at most ${KEY_MAX} characters`)
  const payload = sender.payload ? asked(sender, 'payload', () => sender.payload?.(value, headers)) : value
  return accepted(
    await rim.gates.signalByCorrelationKey(correlationKey, payload, {
      source: `${sender.name} ${known.source}`,
      headers: known.headers,
      idempotencyKey: `${sender.name}:${key}`,
      ...(sender.keepForMs === undefined ? {} : { keepFor: sender.keepForMs }),
    }),
  )
}

async function checkSignature(sender: CheckedSender, headers: Headers, body: Uint8Array): Promise<void> {
  const { scheme, secrets, toleranceMs } = sender
  // The sender's clock is compared with, so no clock of ours is better than this machine's.
  const nowMs = Date.now()
  const holds =
    typeof scheme === 'function'
      ? (await scheme({ headers, body, secrets, nowMs })) === true
      : SCHEMES[scheme]({ headers, body, secrets, nowMs, toleranceMs })
  if (!holds) throw new HttpProblem('invalid_signature')
}

/** Slack asks an address once whether it is meant. */
function slackChallenge(sender: CheckedSender, value: unknown): string | undefined {
  if (sender.scheme !== 'slack' || typeof value !== 'object' || value === null) return undefined
  const challenge: unknown = Reflect.get(value, 'challenge')
  return Reflect.get(value, 'type') === 'url_verification' && typeof challenge === 'string' ? challenge : undefined
}

/**
 * What identifies a delivery when it is sent again: an id that the signature covers, else the body
 * that it covers. GitHub signs the body and not `X-GitHub-Delivery`, so whoever has seen one
 * delivery could send it again under another id.
 */
function deliveryId(sender: CheckedSender, value: unknown, headers: Headers, bytes: Uint8Array): string {
  const id =
    sender.scheme === 'standard'
      ? headers.get('webhook-id')
      : sender.scheme === 'stripe' && typeof value === 'object' && value !== null
        ? Reflect.get(value, 'id')
        : undefined
  return typeof id === 'string' && id !== '' && id.length <= 200
    ? id
    : createHash('sha256').update(bytes).digest('base64url')
}

/**
 * What the user's function brings. When it throws, that is this side's fault, and the sender may
 * try again.
 */
function asked<T>(sender: CheckedSender, option: string, call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw faulty(sender, option, messageOf(error))
  }
}

function faulty(sender: CheckedSender, option: string, what: string): FlowStoneError {
  return new FlowStoneError('user_code', `verified.${sender.name}: ${option} failed: ${what}`)
}
