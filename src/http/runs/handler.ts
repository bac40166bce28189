/**
 * Runs over HTTP, as one function from Request to Response.
 *
 *     POST /runs/<pipeline>/<asset>   starts a run, for whoever has an API key for the asset
 *     GET  /runs/<run>                how it is; its value or error when it has ended
 *     POST <path of a webhook>        a service that signs what it sends starts a run
 */
import { type Context, Hono } from 'hono'
import { InvalidError, messageOf } from '../../../streams/errors.ts'
import { cut } from '../../../streams/text.ts'
import { traceContextOf } from '../../../streams/trace.ts'
import type { RunOptions } from '../../define/run-options.ts'
import { loggerOf } from '../../logs/logger.ts'
import { refuseUnknown } from '../../options/unknown.ts'
import type { Logger } from '../../telemetry.ts'
import { tracing } from '../../tracing.ts'
import { addressReader, limiterName } from '../shared/address.ts'
import { type ApiKey, ApiKeys, type KnownKey } from '../shared/api-keys.ts'
import { bodyKind, readBody } from '../shared/body.ts'
import type { BodyBudget } from '../shared/budget.ts'
import { toProblem } from '../shared/fault.ts'
import {
  addressLimiter,
  bodyBudget,
  COMMON_OPTIONS,
  type CommonOptions,
  checkBaseUrl,
  checkRateLimit,
  enforceLimit,
  type Limits,
  limiter,
  limitsOf,
  methodNotAllowed,
  toBindings,
} from '../shared/limits.ts'
import { HttpProblem, problemResponse } from '../shared/problem.ts'
import type { FixedLimiter, Rate } from '../shared/rate.ts'
import { within } from '../shared/with-timeout.ts'
import { endOf, type RunEnd, runAnswer, startedAnswer, viewOf } from './answer.ts'
import { type RunOverHttp, type RunsOverHttp, startProblem, startsFor } from './over-http.ts'
import { waitOf } from './prefer.ts'
import { receiveStart } from './start.ts'
import { Waits } from './waits.ts'
import { type CheckedWebhook, checkWebhooks, startByWebhook, type Webhook } from './webhooks.ts'

/** Options of `runHandler`: who may start and read runs, and whose webhooks start them. */
export interface RunHandlerOptions extends CommonOptions {
  /** Who may start and read runs. Without any there is no address for that. */
  readonly apiKeys?: readonly ApiKey[]
  /** Services whose signed webhooks start runs, by the path that they send to. */
  readonly webhooks?: Readonly<Record<string, Webhook>>
  /**
   * Requests in a time, above which is 429: for each source address (default `[500, 'second']`),
   * and for each id of an API key (default `[100, 'second']`). false: no limit.
   */
  readonly rateLimit?: { readonly address?: Rate | false; readonly key?: Rate | false }
}

/** `env`: what the framework knows of the connection; see `address`. */
export type RunHandler = (request: Request, env?: unknown) => Promise<Response>

const OPTIONS = [
  ...COMMON_OPTIONS,
  'apiKeys',
  'webhooks',
  'rateLimit',
] as const satisfies readonly (keyof RunHandlerOptions)[]
const NAME = /^[A-Za-z0-9_-]{1,128}$/
const RUNS = '/runs'

/** What all requests share. */
interface Shared {
  readonly flow: RunsOverHttp
  readonly limits: Limits
  readonly logger: Logger
  readonly waits: Waits
  /** Bodies of those with a key. */
  readonly bodies: BodyBudget
  readonly urlOf: (run: string) => string
  /** Aborted when the server closes: nobody waits on. */
  readonly closing: AbortSignal | undefined
}

/** Throws InvalidError for options that cannot be. */
export function runHandler(
  flow: RunsOverHttp & { readonly gates?: { readonly baseUrl?: string | undefined } },
  options: RunHandlerOptions,
  closing?: AbortSignal,
): RunHandler {
  refuseUnknown('runHandler', options, OPTIONS)
  const { apiKeys, webhooks, rateLimit = {} } = options
  const logger = loggerOf(options.logger)
  if (apiKeys === undefined && webhooks === undefined)
    throw new InvalidError('runHandler: give apiKeys, webhooks, or both: nobody can start runs else')
  if (typeof flow.request !== 'function' || typeof flow.run !== 'function')
    throw new InvalidError('runHandler: flow must be what connect() returned, which starts runs and reads them')
  checkRateLimit(rateLimit)
  refuseUnknown('rateLimit', rateLimit, ['address', 'key'])
  const addressOf = addressReader(options)
  const limits = limitsOf(options)
  const byAddress = addressLimiter(rateLimit.address)
  const byKey = limiter('rateLimit.key', rateLimit.key ?? [100, 'second'])
  const baseUrl = checkBaseUrl(options.baseUrl ?? flow.gates?.baseUrl)?.replace(/\/+$/, '') ?? ''
  const shared: Shared = {
    flow,
    limits,
    logger,
    waits: new Waits(),
    bodies: bodyBudget(limits),
    urlOf: (run) => `${baseUrl}${RUNS}/${run}`,
    closing,
  }
  const app = new Hono<{ Variables: { source: string; key: KnownKey } }>({ strict: true })
  app.use(async (c, next) => {
    const source = addressOf(c.req.raw, c.env)
    enforceLimit(byAddress, limiterName(source))
    c.set('source', source)
    await next()
  })
  if (apiKeys !== undefined) app.route(RUNS, runRoutes(shared, new ApiKeys(apiKeys), byKey))
  // Apart: whoever is not known yet must not take the room of those with a key.
  const unknownBodies = bodyBudget(limits)
  for (const [path, webhook] of webhooks === undefined ? [] : checkWebhooks(webhooks)) {
    app.post(path, async (c) =>
      receiveWebhook(shared, webhook, c.req.raw, unknownBodies.roomOf(limiterName(c.get('source')))),
    )
    app.all(path, () => problemResponse(methodNotAllowed('POST')))
  }
  app.notFound(() => problemResponse(new HttpProblem('not_found', 'There is nothing at this address.')))
  app.onError((error) => problemResponse(toProblem(error, logger)))
  return async (request, env) => await app.fetch(request, toBindings(env))
}

/** Which paths of a server are for this handler. */
export function isForRuns({ apiKeys, webhooks }: RunHandlerOptions, path: string): boolean {
  if (apiKeys !== undefined && (path === RUNS || path.startsWith(`${RUNS}/`))) return true
  return webhooks !== undefined && Object.hasOwn(webhooks, path)
}

type KeyedApp = Hono<{ Variables: { source: string; key: KnownKey } }>

function runRoutes(shared: Shared, keys: ApiKeys, byKey: FixedLimiter | undefined): KeyedApp {
  const app: KeyedApp = new Hono({ strict: true })
  // Before anything else: who has no key learns nothing, not even what is there.
  app.use(async (c, next) => {
    const key = keys.find(c.req.header('authorization') ?? null, Date.now())
    if (!key) throw new HttpProblem('unauthorized')
    enforceLimit(byKey, key.id)
    c.set('key', key)
    await next()
  })
  app.post('/:pipeline/:asset', async (c) => await start(shared, c, c.get('key')))
  app.get('/:run', async (c) => await read(shared, c, c.get('key')))
  app.all('/:pipeline/:asset', () => problemResponse(methodNotAllowed('POST')))
  app.all('/:run', () => problemResponse(methodNotAllowed('GET, HEAD')))
  return app
}

async function start(shared: Shared, c: Context, key: KnownKey): Promise<Response> {
  const { flow, limits, logger, bodies, urlOf } = shared
  const [pipeline, asset] = [c.req.param('pipeline') ?? '', c.req.param('asset') ?? '']
  // By the scope alone, whether there is such an asset or not.
  if (!key.may('start') || !key.covers(pipeline, asset)) throw new HttpProblem('forbidden')
  if (!NAME.test(pipeline) || !NAME.test(asset)) throw new HttpProblem('unknown_asset')
  const request = c.req.raw
  const options = await receiveStart(request, limits, bodies.roomOf(key.id), key.id)
  let run: RunOverHttp
  try {
    const traced = { ...options, ...traceOf(request.headers) }
    run = await within(limits.answerMs, startsFor(flow, 'http', key.id).request(`${pipeline}/${asset}`, traced))
  } catch (error) {
    throw startProblem(error)
  }
  logger.info(`http: API key ${key.id} ${run.isNew ? 'started' : 'repeats'} run ${run.id} of ${pipeline}/${asset}`)
  const url = urlOf(run.id)
  const { end, applied } = await waited(shared, run, key, request)
  // From here on it is there: whatever fails is no reason to say anything else.
  const view = run.isNew && !applied ? undefined : await within(limits.answerMs, viewOf(run)).catch(() => undefined)
  if (!end || !view) return startedAnswer(run, view?.status ?? 'requested', url)
  return runAnswer(view, end, url, { Location: url, ...applied })
}

/** Where the process is instrumented, the span of the request is active, and below its sender's. */
function traceOf(headers: Headers): Pick<RunOptions, 'traceparent' | 'tracestate'> {
  const trace = tracing()?.active() ? undefined : traceContextOf(headers.get('traceparent'), headers.get('tracestate'))
  if (!trace) return {}
  return { traceparent: trace.traceparent, ...(trace.tracestate ? { tracestate: trace.tracestate } : {}) }
}

async function read(shared: Shared, c: Context, key: KnownKey): Promise<Response> {
  if (!key.may('read')) throw new HttpProblem('forbidden')
  const { flow, limits, urlOf } = shared
  const run = runOf(flow, c.req.param('run') ?? '')
  const before = await within(limits.answerMs, viewOf(run))
  if (!key.covers(before.pipeline, before.target)) throw new HttpProblem('unknown_run')
  const { end, applied } = before.finishedAt ? {} : await waited(shared, run, key, c.req.raw)
  const view = applied ? await within(limits.answerMs, viewOf(run)) : before
  if (!end && !view.finishedAt) return runAnswer(view, undefined, urlOf(run.id), applied)
  const ended = end ?? (await within(limits.answerMs, endOf(run, AbortSignal.timeout(limits.answerMs))))
  return runAnswer(view, ended, urlOf(run.id), applied)
}

function runOf(flow: RunsOverHttp, id: string): RunOverHttp {
  try {
    return flow.run(id)
  } catch (error) {
    if (error instanceof InvalidError) throw new HttpProblem('unknown_run')
    throw error
  }
}

/** Waits for the end, as long as the client asked for and stays. `applied`: it was waited for. */
async function waited(
  { waits, closing, logger }: Shared,
  run: RunOverHttp,
  key: KnownKey,
  request: Request,
): Promise<{ readonly end?: RunEnd; readonly applied?: Readonly<Record<string, string>> }> {
  const seconds = waitOf(request.headers)
  using place = seconds === 0 ? undefined : waits.take(key.id)
  if (!place) return {}
  const applied = { 'Preference-Applied': `wait=${seconds}` }
  const ends = [AbortSignal.timeout(seconds * 1000), request.signal, ...(closing ? [closing] : [])]
  const signal = AbortSignal.any(ends)
  try {
    return { end: await endOf(run, signal), applied }
  } catch (error) {
    if (!signal.aborted) logger.warn(`http: waiting for run ${run.id} failed: ${cut(messageOf(error), 500)}`)
    return { applied }
  }
}

async function receiveWebhook(
  { flow, limits, logger }: Shared,
  webhook: CheckedWebhook,
  request: Request,
  room: Parameters<typeof readBody>[2],
): Promise<Response> {
  const { headers } = request
  const kind = bodyKind(headers, limits)
  const bytes = await readBody(request, limits, room)
  const timed: Pick<RunsOverHttp, 'request'> = {
    request: (target, options) =>
      within(limits.answerMs, startsFor(flow, 'webhook', webhook.path).request(target, options)),
  }
  return await startByWebhook(timed, webhook, { kind, bytes, headers }, logger)
}
