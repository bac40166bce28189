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
import { InvalidError } from '../../../streams/errors.ts'
import { shown } from '../../../streams/shown.ts'
import { loggerOf } from '../../logs/logger.ts'
import { refuseUnknown } from '../../options/unknown.ts'
import { addressReader, limiterName } from '../shared/address.ts'
import { type BodyKind, bodyKind, type ParsedBody, parseBody, readBody } from '../shared/body.ts'
import type { BodyBudget, BodyRoom } from '../shared/budget.ts'
import { toProblem } from '../shared/fault.ts'
import {
  addressLimiter,
  bodyBudget,
  COMMON_OPTIONS,
  type CommonOptions,
  checkBaseUrl,
  checkRateLimit,
  enforceLimit,
  idempotencyKeyOf,
  limiter,
  limitsOf,
  methodNotAllowed,
  toBindings,
} from '../shared/limits.ts'
import { accepted, HttpProblem, problemResponse } from '../shared/problem.ts'
import type { FixedLimiter, Rate } from '../shared/rate.ts'
import { checkRecorded, DEFAULT_RECORDED, recordedHeaders } from '../shared/recorded.ts'
import type { GatesOverHttp, RequestContext, Sender } from '../shared/request-context.ts'
import { withTimeout } from '../shared/with-timeout.ts'
import { answer } from './answer.ts'
import { checkBrowser, NONCE_FIELD, newNonce } from './form.ts'
import { endedPage, problemPage, waitingPage } from './page.ts'
import { checkSenders, type VerifiedSender, verifiedSignal } from './verified.ts'

/** Options of `gateHandler`: limits on what is taken, and whose requests are signed. */
export interface GateHandlerOptions extends CommonOptions {
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
  /** Senders without a token, by name: `POST /hooks/flowstone/verified/<name>`. */
  readonly verified?: Readonly<Record<string, VerifiedSender>>
  /** false: no page for people; GET is 405. Default true. */
  readonly page?: boolean
}

/** `env`: what the framework knows of the connection; see `address`. */
export type GateHandler = (request: Request, env?: unknown) => Promise<Response>

const SIGNAL = '/hooks/flowstone/signal/:token'
const VERIFIED = '/hooks/flowstone/verified/:name'
const OPTIONS = [
  ...COMMON_OPTIONS,
  'rateLimit',
  'recordHeaders',
  'verified',
  'page',
] as const satisfies readonly (keyof GateHandlerOptions)[]
/** Longer than any token, and shorter than what is a burden to hash. */
const TOKEN_MAX = 2048

/** Throws InvalidError for options that cannot be. */
export function gateHandler(flow: { readonly gates: GatesOverHttp }, options: GateHandlerOptions = {}): GateHandler {
  if (typeof options !== 'object' || options === null)
    throw new InvalidError(`gateHandler: options must be an object, got ${shown(options)}`)
  refuseUnknown('gateHandler', options, OPTIONS)
  const { page = true } = options
  const logger = loggerOf(options.logger)
  const requests = new GateRequests(flow.gates, options)
  const app = new Hono({ strict: true })
  if (page) app.get(SIGNAL, async (c) => await requests.show(c))
  app.post(SIGNAL, async (c) => await requests.signal(c))
  app.post(VERIFIED, async (c) => await requests.verifiedSignal(c, c.req.param('name')))
  app.all(SIGNAL, () => problemResponse(methodNotAllowed(page ? 'GET, HEAD, POST' : 'POST')))
  app.all(VERIFIED, () => problemResponse(methodNotAllowed('POST')))
  app.notFound(() => problemResponse(new HttpProblem('not_found', 'There is nothing at this address.')))
  app.onError(async (error, c) => {
    const problem = toProblem(error, logger)
    return wantsPage(c.req.raw) ? await problemPage(problem) : problemResponse(problem)
  })
  return async (request, env) => await app.fetch(request, toBindings(env))
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
    const { rateLimit = {}, verified = {}, page = true } = options
    this.#baseUrl = checkBaseUrl(options.baseUrl ?? gates.baseUrl)
    checkRateLimit(rateLimit)
    refuseUnknown('rateLimit', rateLimit, ['address', 'token'])
    if (typeof page !== 'boolean') throw new InvalidError(`page must be true or false, got ${shown(page)}`)
    this.#addressOf = addressReader(options)
    const limits = limitsOf(options)
    this.#byAddress = addressLimiter(rateLimit.address)
    this.#byToken = limiter('rateLimit.token', rateLimit.token ?? [60, 'minute'])
    const recorded = checkRecorded(options.recordHeaders ?? DEFAULT_RECORDED)
    this.#senders = checkSenders(verified)
    this.#signedBodies = bodyBudget(limits)
    this.#otherBodies = bodyBudget(limits)
    this.#rim = { gates: withTimeout(gates, limits.answerMs), limits, recorded }
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
    const token = this.#tokenOf(c, { source })
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

  /** `attempt`: it is to answer with. */
  #tokenOf(c: Context, attempt?: { readonly source: string }): string {
    const token = c.req.param('token') ?? ''
    if (token.length > TOKEN_MAX || !/^[\w.~-]+$/.test(token)) throw new HttpProblem('malformed_token')
    // By the whole token, and none that is forged: only who has the token can use up its allowance,
    // and no others fill up what is counted in.
    this.#rim.gates.verify(token, attempt)
    enforceLimit(this.#byToken, createHash('sha256').update(token).digest('base64url'))
    return token
  }
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

/** Browsers ask for HTML; programs that ask for anything get a problem that they can read. */
function wantsPage(request: Request): boolean {
  return /\btext\/html\b/i.test(request.headers.get('accept') ?? '')
}
