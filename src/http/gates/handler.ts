/**
 * Gates over HTTP, as one function from Request to Response: it mounts in hono, in Node's http (by
 * `@hono/node-server`), and wherever fetch is spoken.
 *
 *     POST /hooks/flowstone/signal/<token>      an outside system answers
 *     GET  /hooks/flowstone/signal/<token>      a page for people; it never signals, since previews of links ask for it too
 *     POST /hooks/flowstone/verified/<sender>   a sender without a token, known by its own signature
 */

import { createHash } from 'node:crypto'
import { type Context, Hono } from 'hono'
import { InvalidError, messageOf } from '../../../streams/errors.ts'
import { cut } from '../../../streams/text.ts'
import { type Duration, parseDuration } from '../../options/duration.ts'
import { refuseUnknown } from '../../options/unknown.ts'
import { type Logger, quietLogger } from '../../telemetry.ts'
import { type AddressOptions, addressReader, limiterName } from '../shared/address.ts'
import { type BodyKind, bodyKind, type ParsedBody, parseBody, readBody } from '../shared/body.ts'
import { BodyBudget, type BodyRoom } from '../shared/budget.ts'
import { accepted, HttpProblem, problemOf, problemResponse } from '../shared/problem.ts'
import { FixedLimiter, type Rate } from '../shared/rate.ts'
import { checkRecorded, DEFAULT_RECORDED, recordedHeaders } from '../shared/recorded.ts'
import type { GatesOverHttp, RequestContext, Sender } from '../shared/request-context.ts'
import { withTimeout } from '../shared/with-timeout.ts'
import { answer } from './answer.ts'
import { checkBrowser, NONCE_FIELD, newNonce } from './form.ts'
import { endedPage, problemPage, waitingPage } from './page.ts'
import { checkSenders, type VerifiedSender, verifiedSignal } from './verified.ts'

/** Options of `gateHandler`: limits on what is taken, and whose requests are signed. */
export interface GateHandlerOptions extends AddressOptions {
  /** Largest body, in bytes; more is 413. Default 1 MiB. */
  readonly maxBodyBytes?: number
  /** How long a body may take to arrive; longer is 408. Default `'10s'`. */
  readonly bodyTimeout?: Duration
  /**
   * How long NATS may take to store a signal; longer is 503, and the sender may send it again.
   * Default `'10s'`.
   */
  readonly answerTimeout?: Duration
  /**
   * Requests in a time, above which is 429: for each source address (default `[500, 'second']`),
   * and for each token (default `[60, 'minute']`). false: no limit.
   */
  readonly rateLimit?: { readonly address?: Rate | false; readonly token?: Rate | false }
  /**
   * Headers kept with a signal. Default: user-agent, content-type, x-request-id. Those that carry
   * secrets are refused (InvalidError).
   */
  readonly recordHeaders?: readonly string[]
  /**
   * Where this is reached from outside, such as `https://flows.example.com`: what a browser's
   * Origin is compared with. Default: that of the flow (`connect({ gates: { baseUrl } })`), else
   * the Host header.
   */
  readonly baseUrl?: string
  /** Senders without a token, by name: `POST /hooks/flowstone/verified/<name>`. */
  readonly verified?: Readonly<Record<string, VerifiedSender>>
  /** false: no page for people; GET is 405. Default true. */
  readonly page?: boolean
  /**
   * Faults of this side go there, without address and body. Default: warnings and errors to
   * standard error.
   */
  readonly logger?: Logger
}

/** `env`: what the framework knows of the connection; see `address`. */
export type GateHandler = (request: Request, env?: unknown) => Promise<Response>

const SIGNAL = '/hooks/flowstone/signal/:token'
const VERIFIED = '/hooks/flowstone/verified/:name'
const BUDGET_BYTES = 64 * 1_048_576
/** What one source address may have of it. */
const BUDGET_SHARE = 1 / 8
const PATIENCE_MAX_MS = 3_600_000
const OPTIONS = [
  'maxBodyBytes',
  'bodyTimeout',
  'answerTimeout',
  'rateLimit',
  'recordHeaders',
  'baseUrl',
  'verified',
  'page',
  'logger',
  'trustProxy',
  'proxyHeader',
  'address',
] as const satisfies readonly (keyof GateHandlerOptions)[]
/** Longer than any token, and shorter than what is a burden to hash. */
const TOKEN_MAX = 2048

/** Throws InvalidError for options that cannot be. */
export function gateHandler(flow: { readonly gates: GatesOverHttp }, options: GateHandlerOptions = {}): GateHandler {
  if (typeof options !== 'object' || options === null)
    throw new InvalidError(`gateHandler: options must be an object, got ${JSON.stringify(options)}`)
  refuseUnknown('gateHandler', options, OPTIONS)
  const { page = true, logger = quietLogger } = options
  const requests = new GateRequests(flow.gates, options)
  const app = new Hono({ strict: true })
  if (page) app.get(SIGNAL, async (c) => await requests.show(c))
  app.post(SIGNAL, async (c) => await requests.signal(c))
  app.post(VERIFIED, async (c) => await requests.verifiedSignal(c, c.req.param('name')))
  app.all(SIGNAL, () => methodNotAllowed(page ? 'GET, HEAD, POST' : 'POST'))
  app.all(VERIFIED, () => methodNotAllowed('POST'))
  app.notFound(() => problemResponse(new HttpProblem('not_found', 'There is nothing at this address.')))
  app.onError(async (error, c) => {
    const problem = toProblem(error, logger)
    return wantsPage(c.req.raw) ? await problemPage(problem) : problemResponse(problem)
  })
  return async (request, env) => await app.fetch(request, toBindings(env))
}

function checkOptions({ maxBodyBytes, baseUrl, rateLimit, page }: Checked): void {
  if (!Number.isInteger(maxBodyBytes) || maxBodyBytes < 1)
    throw new InvalidError(`maxBodyBytes must be a whole number from 1, got ${maxBodyBytes}`)
  if (baseUrl !== undefined && !/^https?:$/.test(URL.canParse(baseUrl) ? new URL(baseUrl).protocol : ''))
    throw new InvalidError(
      `baseUrl must be an address such as https://flows.example.com, got ${JSON.stringify(baseUrl)}`,
    )
  if (typeof rateLimit !== 'object' || rateLimit === null)
    throw new InvalidError(`rateLimit must be an object such as { address: false }, got ${JSON.stringify(rateLimit)}`)
  refuseUnknown('rateLimit', rateLimit, ['address', 'token'])
  if (typeof page !== 'boolean') throw new InvalidError(`page must be true or false, got ${JSON.stringify(page)}`)
}

interface Checked extends Required<Pick<GateHandlerOptions, 'maxBodyBytes' | 'rateLimit' | 'page'>> {
  readonly baseUrl: string | undefined
}

/** What is done with the requests that a gate handler takes. */
class GateRequests {
  readonly #rim: RequestContext
  readonly #baseUrl: string | undefined
  readonly #addressOf: ReturnType<typeof addressReader>
  readonly #byAddress: FixedLimiter | undefined
  readonly #byToken: FixedLimiter | undefined
  readonly #senders: ReturnType<typeof checkSenders>
  // Two of them: whoever is not known yet must not take the room of those with a token.
  readonly #signedBodies: BodyBudget
  readonly #otherBodies: BodyBudget

  constructor(gates: GatesOverHttp, options: GateHandlerOptions) {
    const { maxBodyBytes = 1_048_576, rateLimit = {}, verified = {}, page = true, baseUrl = gates.baseUrl } = options
    checkOptions({ maxBodyBytes, baseUrl, rateLimit, page })
    this.#baseUrl = baseUrl
    this.#addressOf = addressReader(options)
    const limits = { maxBytes: maxBodyBytes, timeoutMs: parseTimeout('bodyTimeout', options.bodyTimeout) }
    this.#byAddress = limiter('rateLimit.address', rateLimit.address ?? [500, 'second'])
    this.#byToken = limiter('rateLimit.token', rateLimit.token ?? [60, 'minute'])
    const recorded = checkRecorded(options.recordHeaders ?? DEFAULT_RECORDED)
    this.#senders = checkSenders(verified)
    this.#signedBodies = bodyBudget(maxBodyBytes)
    this.#otherBodies = bodyBudget(maxBodyBytes)
    const answerMs = parseTimeout('answerTimeout', options.answerTimeout)
    this.#rim = { gates: withTimeout(gates, answerMs), limits, recorded }
  }

  /** The page for people. */
  async show(c: Context): Promise<Response> {
    this.#admit(c)
    const token = this.#tokenOf(c)
    const gate = await this.#rim.gates.getByToken(token)
    if (!gate) throw new HttpProblem('not_found')
    if (gate.status !== 'waiting') return await endedPage(gate, 'looked')
    return await waitingPage(gate, { nonce: newNonce(token, Date.now()) })
  }

  async signal(c: Context): Promise<Response> {
    const rim = this.#rim
    const request = c.req.raw
    const source = this.#admit(c)
    const token = this.#tokenOf(c)
    const kind = bodyKind(request.headers, rim.limits)
    const { browser } = checkBrowser(request, this.#baseUrl)
    const body = await received(rim, request, kind, this.#signedBodies.roomOf(limiterName(source)))
    const sender: Sender = { source, headers: recordedHeaders(request.headers, rim.recorded, token) }
    if (body.fields?.some(([name]) => name === NONCE_FIELD))
      return await answer(rim, { token, fields: body.fields, sender })
    // What a form of any page can send, our own pages only send with a nonce.
    if (browser && kind !== 'json') throw new HttpProblem('form_expired')
    const idempotencyKey = idempotencyKeyOf(request.headers)
    return accepted(
      await rim.gates.signal(token, body.value, {
        source,
        headers: sender.headers,
        ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
      }),
    )
  }

  async verifiedSignal(c: Context, name: string): Promise<Response> {
    const rim = this.#rim
    const source = this.#admit(c)
    const request = c.req.raw
    const sender = this.#senders.get(name)
    if (!sender) throw new HttpProblem('unknown_sender')
    const kind = bodyKind(request.headers, rim.limits)
    const bytes = await readBody(request, rim.limits, this.#otherBodies.roomOf(limiterName(source)))
    const known = { source, headers: recordedHeaders(request.headers, rim.recorded, undefined) }
    return await verifiedSignal(rim, { sender, kind, bytes, request, known })
  }

  #admit(c: Context): string {
    const source = this.#addressOf(c.req.raw, c.env)
    enforceLimit(this.#byAddress, limiterName(source))
    return source
  }

  #tokenOf(c: Context): string {
    const token = c.req.param('token') ?? ''
    if (token.length > TOKEN_MAX || !/^[\w.~-]+$/.test(token)) throw new HttpProblem('malformed_token')
    // By the whole token, and none that is forged: only who has the token can use up its allowance,
    // and no others fill up what is counted in.
    this.#rim.gates.verify(token)
    enforceLimit(this.#byToken, createHash('sha256').update(token).digest('base64url'))
    return token
  }
}

function bodyBudget(maxBodyBytes: number): BodyBudget {
  return new BodyBudget(Math.max(BUDGET_BYTES, 2 * maxBodyBytes), Math.max(BUDGET_BYTES * BUDGET_SHARE, maxBodyBytes))
}

async function received(
  { limits }: RequestContext,
  request: Request,
  kind: BodyKind,
  room: BodyRoom,
): Promise<ParsedBody> {
  const bytes = await readBody(request, limits, room)
  return await parseBody(kind, bytes, request.headers.get('content-type') ?? '')
}

/** Longer than an hour nobody waits for an answer. */
function parseTimeout(field: string, duration: Duration = '10s'): number {
  const ms = parseDuration(field, duration)
  if (ms > 0 && ms <= PATIENCE_MAX_MS) return ms
  throw new InvalidError(`${field} must be more than 0 and at most 1 h, got ${JSON.stringify(duration)}`)
}

function limiter(field: string, rate: Rate | false): FixedLimiter | undefined {
  return rate === false ? undefined : new FixedLimiter(field, rate)
}

function enforceLimit(limit: FixedLimiter | undefined, name: string): void {
  const waitMs = limit?.take(name) ?? 0
  if (waitMs > 0)
    throw new HttpProblem('rate_limited', undefined, { 'Retry-After': String(Math.max(1, Math.ceil(waitMs / 1000))) })
}

/** Text or a quoted string (as the header's draft has it), up to 255 characters. */
function idempotencyKeyOf(headers: Headers): string | undefined {
  const given = headers.get('idempotency-key')?.trim()
  if (given === undefined) return undefined
  const key = /^"((?:[^"\\]|\\["\\])*)"$/.exec(given)?.[1]?.replaceAll(/\\(.)/g, '$1') ?? given
  if (key === '' || key.length > 255)
    throw new HttpProblem('malformed_request', 'Idempotency-Key must have 1 to 255 characters.')
  return key
}

/** Browsers ask for HTML; programs that ask for anything get a problem that they can read. */
function wantsPage(request: Request): boolean {
  return /\btext\/html\b/i.test(request.headers.get('accept') ?? '')
}

function methodNotAllowed(allow: string): Response {
  return problemResponse(new HttpProblem('method_not_allowed', undefined, { Allow: allow }))
}

/**
 * The problem to answer with. Faults of this side are logged, and never with the address: it holds
 * the token.
 */
function toProblem(error: unknown, logger: Logger): HttpProblem {
  const problem = problemOf(error)
  if (problem.status >= 500 && !(error instanceof HttpProblem))
    logger.error(`http: a request failed (${problem.reason}): ${cut(withoutTokens(messageOf(error)), 500)}`)
  return problem
}

/** Whatever threw, and whatever it put into its words. */
function withoutTokens(text: string): string {
  return text.replaceAll(/\bv1\.[\w.~-]{20,}/g, 'v1.…')
}

function toBindings(env: unknown): object {
  return typeof env === 'object' && env !== null ? env : {}
}
