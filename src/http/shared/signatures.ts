/**
 * Signatures of senders, as their makers document them. All are HMAC-SHA-256 over the raw body,
 * which must not be changed before the check. They differ in what else is signed, and in what
 * bounds a replay.
 *
 *   | scheme     | header                                    | signed                      | bound |
 *   |------------|-------------------------------------------|-----------------------------|-------|
 *   | `github`   | X-Hub-Signature-256: `sha256=<hex>`       | body                        | none  |
 *   | `stripe`   | Stripe-Signature: `t=<s>,v1=<hex>[,v1=…]` | `<t>.` body                 | time  |
 *   | `slack`    | X-Slack-Signature: `v0=<hex>`             | `v0:<time>:` body           | time  |
 *   | `standard` | webhook-signature: `v1,<base64>[ v1,…]`   | `<webhook-id>.<time>.` body | time  |
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { InvalidError } from '../../../streams/errors.ts'

/** How a sender signs its requests: GitHub, Stripe, Slack, or Standard Webhooks. */
export type SignatureScheme = 'github' | 'stripe' | 'slack' | 'standard'

/** A scheme of one's own: whether the sender is who it says. */
export type CustomScheme = (request: {
  readonly headers: Headers
  readonly body: Uint8Array
  readonly secrets: readonly string[]
  readonly nowMs: number
}) => boolean | Promise<boolean>

export interface Signed {
  readonly headers: Headers
  readonly body: Uint8Array
  /** Any of them may have signed: two during a rotation. */
  readonly secrets: readonly string[]
  readonly nowMs: number
  readonly toleranceMs: number
}

export const SCHEMES: Readonly<Record<SignatureScheme, (signed: Signed) => boolean>> = {
  github({ headers, body, secrets }) {
    const given = /^sha256=([0-9a-f]{64})$/.exec(headers.get('x-hub-signature-256') ?? '')?.[1]
    return given !== undefined && matches(secrets, [body], [Buffer.from(given, 'hex')])
  },
  stripe(signed) {
    const parts = (signed.headers.get('stripe-signature') ?? '').split(',').map((part) => part.trim().split('='))
    const time = parts.find(([name]) => name === 't')?.[1] ?? ''
    const given = parts.flatMap(([name, value]) => (name === 'v1' ? hex(value) : []))
    return isRecent(time, signed) && matches(signed.secrets, [`${time}.`, signed.body], given)
  },
  slack(signed) {
    const time = signed.headers.get('x-slack-request-timestamp') ?? ''
    const given = hex(/^v0=(.*)$/.exec(signed.headers.get('x-slack-signature') ?? '')?.[1])
    return isRecent(time, signed) && matches(signed.secrets, [`v0:${time}:`, signed.body], given)
  },
  standard(signed) {
    const id = signed.headers.get('webhook-id') ?? ''
    const time = signed.headers.get('webhook-timestamp') ?? ''
    const given = (signed.headers.get('webhook-signature') ?? '').split(' ').flatMap((part) => {
      const [version, value = ''] = part.split(',')
      return version === 'v1' && /^[A-Za-z0-9+/]{43}=$/.test(value) ? [Buffer.from(value, 'base64')] : []
    })
    const keys = signed.secrets.map(standardKey)
    return id !== '' && isRecent(time, signed) && matches(keys, [`${id}.${time}.`, signed.body], given)
  },
}

const STANDARD_KEY_MIN_BYTES = 24

/** The key of a secret as Standard Webhooks writes it: base64, with `whsec_` before it or not. */
function standardKey(secret: string): Buffer {
  return Buffer.from(secret.replace(/^whsec_/, ''), 'base64')
}

/**
 * Throws InvalidError unless the secret is base64 of at least 24 bytes: what else Node decodes may
 * be shorter than it looks, or empty, and then anybody can sign.
 */
export function checkStandardSecret(field: string, secret: string): void {
  const text = secret.replace(/^whsec_/, '')
  const key = standardKey(secret)
  const isBase64 =
    /^[A-Za-z0-9+/]+={0,2}$/.test(text) && key.toString('base64').replaceAll('=', '') === text.replaceAll('=', '')
  if (!isBase64 || key.length < STANDARD_KEY_MIN_BYTES)
    throw new InvalidError(
      `${field} of scheme standard must be base64 of at least ${STANDARD_KEY_MIN_BYTES} bytes, as its sender shows it (whsec_…)`,
    )
}

const GIVEN_MAX = 8

/** Every given signature against every secret, each in constant time. */
function matches(
  secrets: readonly (string | Uint8Array)[],
  parts: readonly (string | Uint8Array)[],
  given: readonly Uint8Array[],
): boolean {
  let found = false
  for (const secret of secrets) {
    const hmac = createHmac('sha256', secret)
    for (const part of parts) hmac.update(part)
    const wanted = hmac.digest()
    for (const one of given.slice(0, GIVEN_MAX))
      if (one.length === wanted.length && timingSafeEqual(one, wanted)) found = true
  }
  return found
}

/** Whole seconds since 1970, neither too old nor (by more than clocks differ) of the future. */
function isRecent(time: string, { nowMs, toleranceMs }: Signed): boolean {
  return /^\d{1,12}$/.test(time) && Math.abs(nowMs - Number(time) * 1000) <= toleranceMs
}

function hex(text: string | undefined): Uint8Array[] {
  return text !== undefined && /^[0-9a-f]{64}$/.test(text) ? [Buffer.from(text, 'hex')] : []
}
