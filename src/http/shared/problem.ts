/**
 * Answers to programs. Refusals are problem details (RFC 9457), one stable `reason` for each, and
 * nothing in them that the caller sent as a secret.
 */

import type { SignalAccepted, SignalRejection } from '../../gates/types.ts'

/** Why a request was refused. The gate's own reasons, and those of HTTP. */
export type ProblemReason =
  | SignalRejection
  | 'malformed_body'
  | 'malformed_request'
  | 'cross_site'
  | 'form_expired'
  | 'unknown_sender'
  | 'unauthorized'
  | 'forbidden'
  | 'unknown_asset'
  | 'unknown_run'
  | 'unknown_id'
  | 'invalid_query'
  | 'conflict'
  | 'not_kept'
  | 'pruned'
  | 'damaged'
  | 'key_conflict'
  | 'invalid_input'
  | 'method_not_allowed'
  | 'slow_body'
  | 'payload_too_large'
  | 'unsupported_media_type'
  | 'rate_limited'
  | 'unavailable'
  | 'internal'

/** Status and title of each reason. Titles never change with the occurrence; `detail` does. */
const PROBLEMS: Readonly<Record<ProblemReason, readonly [status: number, title: string, detail: string]>> = {
  malformed_token: [400, 'Malformed token', 'The address does not hold a whole token; copy all of it.'],
  invalid_signature: [401, 'Invalid signature', 'The signature is not one that is accepted here.'],
  not_found: [404, 'Not found', 'There is no gate of this name.'],
  already_signaled: [409, 'Already signaled', 'Another signal was first; a gate takes one.'],
  expired: [410, 'Expired', 'The gate has timed out.'],
  cancelled: [410, 'Cancelled', 'The gate was cancelled.'],
  invalid_payload: [422, 'Invalid payload', 'The payload is not what this gate takes.'],
  malformed_body: [400, 'Malformed body', 'The body is not what its content type says.'],
  malformed_request: [400, 'Malformed request', 'The request cannot be understood.'],
  cross_site: [403, 'From another site', 'A page of another site must not send this.'],
  form_expired: [403, 'Form not valid', 'This form is too old, or belongs to another gate; open the page again.'],
  unknown_sender: [404, 'No such sender', 'No sender of this name is set up here.'],
  unauthorized: [401, 'No valid API key', 'Send a valid API key: Authorization: Bearer <key>.'],
  forbidden: [403, 'Not allowed', 'This API key does not allow that.'],
  unknown_asset: [404, 'No such asset', 'No pipeline that is registered has an asset of this name.'],
  unknown_run: [404, 'No such run', 'There is no run of this id that this API key may read.'],
  unknown_id: [404, 'Nothing of this name', 'There is nothing of this name that this API key may see.'],
  invalid_query: [400, 'Invalid query', 'A query parameter is not known, or is not what it must be.'],
  not_kept: [404, 'Not kept', 'How this was at that time is not kept.'],
  pruned: [410, 'Pruned', 'It was older than its retention, or somebody pruned it.'],
  conflict: [409, 'Not possible now', 'Its state does not allow that.'],
  key_conflict: [
    409,
    'Key used before',
    'This idempotency key was used for another request. Use another key, or ask for the same.',
  ],
  invalid_input: [422, 'Invalid input', 'The request is not what this asset takes.'],
  method_not_allowed: [405, 'Method not allowed', 'This address takes other methods; see Allow.'],
  slow_body: [408, 'Body too slow', 'The body did not arrive in time.'],
  payload_too_large: [413, 'Body too large', 'The body is larger than is accepted here.'],
  unsupported_media_type: [415, 'Unsupported media type', 'Send JSON, a form, or text; see Accept-Post.'],
  rate_limited: [429, 'Too many requests', 'Try again later; see Retry-After.'],
  unavailable: [
    503,
    'Not available',
    'It is not known whether this was stored. Send it again, with the same Idempotency-Key.',
  ],
  damaged: [500, 'Stored data is damaged', 'What is stored of this is missing, or cannot be read.'],
  internal: [500, 'Internal error', 'Something went wrong here.'],
}

export class HttpProblem extends Error {
  readonly reason: ProblemReason
  readonly status: number
  readonly title: string
  readonly detail: string
  readonly headers: Readonly<Record<string, string>>
  /** The parameter, or the place in the body, that is at fault. */
  readonly field: string | undefined

  constructor(reason: ProblemReason, detail?: string, headers: Readonly<Record<string, string>> = {}, field?: string) {
    const [status, title, usual] = PROBLEMS[reason]
    super(title)
    this.reason = reason
    this.status = status
    this.title = title
    this.detail = detail ?? usual
    this.field = field
    // RFC 9110 wants a challenge with every 401.
    this.headers = status === 401 ? { 'WWW-Authenticate': challengeOf(reason), ...headers } : headers
  }
}

function challengeOf(reason: ProblemReason): string {
  return reason === 'unauthorized' ? 'Bearer realm="flowstone"' : 'FlowStone realm="gate"'
}

/**
 * On every answer: what is at a secret address is not cached, indexed or framed, and the address is
 * not passed on to other sites.
 */
export const GUARD_HEADERS: Readonly<Record<string, string>> = {
  'Cache-Control': 'no-store',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'X-Robots-Tag': 'noindex, nofollow, noarchive',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cross-Origin-Opener-Policy': 'same-origin',
}

/** For all that is no page: nothing in it may be run, loaded or framed. */
export const SEALED_CSP = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

export function problemBody({ status, title, detail, reason, field }: HttpProblem): object {
  return { type: `urn:flowstone:problem:${reason}`, title, status, detail, reason, field }
}

export function problemResponse(problem: HttpProblem): Response {
  return new Response(`${JSON.stringify(problemBody(problem))}\n`, {
    status: problem.status,
    headers: {
      ...GUARD_HEADERS,
      'Content-Security-Policy': SEALED_CSP,
      ...problem.headers,
      'Content-Type': 'application/problem+json',
    },
  })
}

export function accepted({ status, gate, repeated }: SignalAccepted): Response {
  return json({ status, gate, repeated })
}

export function json(value: unknown, status = 200, headers: Readonly<Record<string, string>> = {}): Response {
  return jsonText(JSON.stringify(value), status, headers)
}

export function jsonText(text: string, status: number, headers: Readonly<Record<string, string>>): Response {
  return new Response(`${text}\n`, {
    status,
    headers: {
      ...GUARD_HEADERS,
      'Content-Security-Policy': SEALED_CSP,
      ...headers,
      'Content-Type': 'application/json',
    },
  })
}
