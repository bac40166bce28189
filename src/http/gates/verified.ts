/**
 * Callbacks without a token: the sender is known by its own signature, and the gate by a
 * correlation key that is found in what it sent.
 */
import { FlowStoneError, InvalidError, messageOf } from '../../../streams/errors.ts'
import { shown } from '../../../streams/shown.ts'
import type { Duration } from '../../options/duration.ts'
import { refuseUnknown } from '../../options/unknown.ts'
import { type BodyKind, parseBody } from '../shared/body.ts'
import { accepted, HttpProblem, json } from '../shared/problem.ts'
import type { RequestContext, Sender } from '../shared/request-context.ts'
import {
  type CheckedSigner,
  checkSignature,
  checkSigner,
  deliveryId,
  type SignedSender,
  slackChallenge,
  withinDay,
} from '../shared/signed.ts'

/** A sender whose requests are signed: how, with what, and which gate they are for. */
export interface VerifiedSender extends SignedSender {
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
   * Keeps a signal that comes before its gate is opened; see `gates.signalByCorrelationKey`.
   * Default: such a signal is 404.
   */
  readonly keepFor?: Duration
}

export interface CheckedSender extends Omit<VerifiedSender, keyof SignedSender | 'keepFor'>, CheckedSigner {
  readonly name: string
  readonly keepForMs: number | undefined
}

interface Received {
  readonly sender: CheckedSender
  readonly kind: BodyKind
  readonly bytes: Uint8Array
  readonly request: Request
  readonly known: Sender
}

/** With gates it is so much, and no gate can have another name. */
const CORRELATION_KEY_MAX_BYTES = 1024
const KEY_MAX = 512
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
    throw new InvalidError(`verified must be an object of senders by name, got ${shown(senders)}`)
  return new Map(
    Object.entries(senders).map(([name, sender]) => {
      const at = `verified.${name}`
      if (!/^[A-Za-z0-9_-]{1,64}$/.test(name))
        throw new InvalidError(`verified: ${JSON.stringify(name)} must be 1 to 64 of A-Z a-z 0-9 _ -`)
      if (typeof sender !== 'object' || sender === null)
        throw new InvalidError(`${at} must be an object with scheme, secret and correlationKey`)
      refuseUnknown(at, sender, OPTIONS)
      const { scheme, secret, tolerance, keepFor, ...rest } = sender
      const signer = checkSigner(at, { scheme, secret, ...(tolerance === undefined ? {} : { tolerance }) })
      if (typeof rest.correlationKey !== 'function')
        throw new InvalidError(`${at}: correlationKey must be a function that finds the gate's correlation key`)
      for (const option of ['payload', 'idempotencyKey'] as const)
        if (rest[option] !== undefined && typeof rest[option] !== 'function')
          throw new InvalidError(`${at}: ${option} must be a function, got ${typeof rest[option]}`)
      const checked: CheckedSender = {
        ...rest,
        ...signer,
        name,
        keepForMs: keepFor === undefined ? undefined : withinDay(`${at}: keepFor`, keepFor),
      }
      return [name, checked]
    }),
  )
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
