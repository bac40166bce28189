/** A sender whose requests are signed: its options, the check, and what identifies a delivery. */
import { createHash } from 'node:crypto'
import { InvalidError } from '../../../streams/errors.ts'
import { shown } from '../../../streams/shown.ts'
import { type Duration, parseDuration } from '../../options/duration.ts'
import { HttpProblem } from './problem.ts'
import { type CustomScheme, checkStandardSecret, SCHEMES, type SignatureScheme } from './signatures.ts'

/** How a sender signs, and with what. */
export interface SignedSender {
  /** How it signs; or a function that checks it. */
  readonly scheme: SignatureScheme | CustomScheme
  /** What it signs with; several while they are rotated. At least 16 characters each. */
  readonly secret: string | readonly string[]
  /**
   * How far its clock and this one's may be apart, for schemes that sign the time. Default `'5m'`.
   */
  readonly tolerance?: Duration
}

export interface CheckedSigner {
  readonly scheme: SignatureScheme | CustomScheme
  readonly secrets: readonly string[]
  readonly toleranceMs: number
}

const SECRET_MIN = 16
const DAY_MS = 24 * 3_600_000

/** Throws InvalidError that begins with `at`. */
export function checkSigner(at: string, { scheme, secret, tolerance = '5m' }: SignedSender): CheckedSigner {
  if (typeof scheme !== 'function' && !Object.hasOwn(SCHEMES, scheme))
    throw new InvalidError(
      `${at}: scheme must be ${Object.keys(SCHEMES).join(', ')} or a function, got ${shown(scheme)}`,
    )
  const secrets = typeof secret === 'string' ? [secret] : secret
  if (
    !Array.isArray(secrets) ||
    secrets.length === 0 ||
    secrets.some((one) => typeof one !== 'string' || one.length < SECRET_MIN)
  )
    throw new InvalidError(`${at}: secret must be text of at least ${SECRET_MIN} characters, or a list of such`)
  if (scheme === 'standard') for (const one of secrets) checkStandardSecret(`${at}: secret`, one)
  return { scheme, secrets, toleranceMs: withinDay(`${at}: tolerance`, tolerance) }
}

export function withinDay(field: string, duration: Duration): number {
  const ms = parseDuration(field, duration)
  if (ms > 0 && ms <= DAY_MS) return ms
  throw new InvalidError(`${field} must be more than 0 and at most 24 h, got ${shown(duration)}`)
}

/** Throws the problem `invalid_signature`. */
export async function checkSignature(
  { scheme, secrets, toleranceMs }: CheckedSigner,
  headers: Headers,
  body: Uint8Array,
): Promise<void> {
  // The sender's clock is compared with, so no clock of ours is better than this machine's.
  const nowMs = Date.now()
  const holds =
    typeof scheme === 'function'
      ? (await scheme({ headers, body, secrets, nowMs })) === true
      : SCHEMES[scheme]({ headers, body, secrets, nowMs, toleranceMs })
  if (!holds) throw new HttpProblem('invalid_signature')
}

/** Slack asks an address once whether it is meant. */
export function slackChallenge({ scheme }: CheckedSigner, value: unknown): string | undefined {
  if (scheme !== 'slack' || typeof value !== 'object' || value === null) return undefined
  const challenge: unknown = Reflect.get(value, 'challenge')
  return Reflect.get(value, 'type') === 'url_verification' && typeof challenge === 'string' ? challenge : undefined
}

/**
 * What identifies a delivery when it is sent again: an id that the signature covers, else the body
 * that it covers. GitHub signs the body and not `X-GitHub-Delivery`, so whoever has seen one
 * delivery could send it again under another id.
 */
export function deliveryId({ scheme }: CheckedSigner, value: unknown, headers: Headers, bytes: Uint8Array): string {
  const id =
    scheme === 'standard'
      ? headers.get('webhook-id')
      : scheme === 'stripe' && typeof value === 'object' && value !== null
        ? Reflect.get(value, 'id')
        : undefined
  return typeof id === 'string' && id !== '' && id.length <= 200
    ? id
    : createHash('sha256').update(bytes).digest('base64url')
}
