/**
 * The API: JSON over HTTP for people's tools and for programs that look at much, as one function
 * from Request to Response. `table.ts` has its routes; here is what all of them pass through.
 */
import { OutgoingMessage } from 'node:http'
import { type Context, Hono } from 'hono'
import { byPart } from '../../../streams/by.ts'
import { InvalidError } from '../../../streams/errors.ts'
import { jsonOf } from '../../../streams/plain-json.ts'
import { loggerOf } from '../../logs/logger.ts'
import { refuseUnknown } from '../../options/unknown.ts'
import type { Logger } from '../../telemetry.ts'
import { addressReader, limiterName } from '../shared/address.ts'
import type { ApiKey, ApiKeyRole } from '../shared/api-keys.ts'
import type { BodyBudget } from '../shared/budget.ts'
import {
  addressLimiter,
  bodyBudget,
  COMMON_OPTIONS,
  type CommonOptions,
  checkBaseUrl,
  checkRateLimit,
  enforceLimit,
  idempotencyKeyOf,
  type Limits,
  limiter,
  limitsOf,
  methodNotAllowed,
  toBindings,
} from '../shared/limits.ts'
import { HttpProblem, json, jsonText, problemResponse } from '../shared/problem.ts'
import type { Rate } from '../shared/rate.ts'
import { within } from '../shared/with-timeout.ts'
import { type Access, accessOf } from './access.ts'
import { FlowsAt } from './flow-at.ts'
import { LiveClients } from './live.ts'
import { OPENAPI_PATH, openApi } from './openapi.ts'
import { checkBody, checkIds, parseQuery, receiveBody } from './parse.ts'
import { apiProblem } from './problems.ts'
import type { ApiFlow, Caller, LiveTopics, Route } from './route.ts'
import { BASE, ROUTES } from './table.ts'

/** Options of `apiHandler`: who may see and act. */
export interface ApiHandlerOptions extends CommonOptions {
  /** Who may see and act: keys with a `role`, or with `may`. */
  readonly apiKeys?: readonly ApiKey[]
  /**
   * What may be done without a key, by whoever reaches this. Only for servers that listen on a
   * loopback address, without a proxy in front: with `trustProxy`, or a `baseUrl` that is no
   * loopback address, it must be `'viewer'`. Default: nothing.
   */
  readonly open?: ApiKeyRole
  /**
   * Requests in a time, above which is 429: for each source address (default `[500, 'second']`),
   * and for each id of an API key (default `[100, 'second']`). false: no limit.
   */
  readonly rateLimit?: { readonly address?: Rate | false; readonly key?: Rate | false }
}

/** `env`: what the framework knows of the connection; see `address`. */
export type ApiHandler = (request: Request, env?: unknown) => Promise<Response>

const OPTIONS = [
  ...COMMON_OPTIONS,
  'apiKeys',
  'open',
  'rateLimit',
] as const satisfies readonly (keyof ApiHandlerOptions)[]

/** Members of a flow that the API cannot do without. */
const NEEDED = ['inspect', 'runs', 'scatter', 'schedules'] as const satisfies readonly (keyof ApiFlow)[]

interface Shared {
  readonly flow: ApiFlow
  readonly access: Access
  readonly limits: Limits
  readonly bodies: BodyBudget
  readonly logger: Logger
  readonly live: LiveClients
  readonly past: FlowsAt
}

type ApiApp = Hono<{ Variables: { caller: Caller } }>

/**
 * The API below `/api/v1`, for a server that you have: `serveGates` has it as `api`. Throws
 * InvalidError for options that cannot be.
 */
export function apiHandler(flow: ApiFlow, options: ApiHandlerOptions, closing?: AbortSignal): ApiHandler {
  refuseUnknown('apiHandler', options, OPTIONS)
  const { apiKeys, open, rateLimit = {} } = options
  const logger = loggerOf(options.logger)
  if (apiKeys === undefined && open === undefined)
    throw new InvalidError(
      "apiHandler: give apiKeys (flowstone http key --role viewer makes one), or open: 'viewer' where only this machine reaches it",
    )
  if (NEEDED.some((member) => flow[member] === undefined))
    throw new InvalidError('apiHandler: flow must be what connect() returned')
  checkRateLimit(rateLimit)
  refuseUnknown('rateLimit', rateLimit, ['address', 'key'])
  const baseUrl = checkBaseUrl(options.baseUrl ?? flow.gates.baseUrl)
  const limits = limitsOf(options)
  const shared: Shared = {
    flow,
    access: accessOf({ apiKeys, open, baseUrl, trustProxy: options.trustProxy }),
    limits,
    bodies: bodyBudget(limits),
    logger,
    live: new LiveClients(closing),
    past: new FlowsAt(flow, closing),
  }
  const addressOf = addressReader(options)
  const byAddress = addressLimiter(rateLimit.address)
  const byKey = limiter('rateLimit.key', rateLimit.key ?? [100, 'second'])
  const app: ApiApp = new Hono({ strict: true })
  app.use(async (c, next) => {
    enforceLimit(byAddress, limiterName(addressOf(c.req.raw, c.env)))
    const caller = shared.access(c.req.raw)
    enforceLimit(byKey, caller.id)
    c.set('caller', caller)
    await next()
  })
  addRoutes(app, shared)
  app.notFound(() => problemResponse(new HttpProblem('unknown_id', 'There is nothing at this address.')))
  app.onError((error) => problemResponse(apiProblem(error, logger)))
  return async (request, env) => await app.fetch(request, toBindings(env))
}

/** Which paths of a server are for this handler. */
export function isForApi(path: string): boolean {
  return path === BASE || path.startsWith(`${BASE}/`)
}

function addRoutes(app: ApiApp, shared: Shared): void {
  let document: unknown
  app.get(`${BASE}${OPENAPI_PATH}`, (c) => {
    mustMay(c.get('caller'), 'read')
    document ??= openApi()
    return json(document)
  })
  const methods = new Map<string, string[]>([[OPENAPI_PATH, ['GET']]])
  for (const route of ROUTES) {
    methods.set(route.path, [...(methods.get(route.path) ?? []), route.method])
    app.on(route.method, `${BASE}${route.path}`, async (c) => await answer(shared, route, c, c.get('caller')))
  }
  for (const [path, allowed] of methods) {
    const allow = allowed.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ')
    app.all(`${BASE}${path}`, () => problemResponse(methodNotAllowed(allow)))
  }
}

async function answer(
  { flow, limits, bodies, logger, live: clients, past }: Shared,
  route: Route,
  c: Context,
  caller: Caller,
): Promise<Response> {
  mustMay(caller, route.scope)
  if (route.wide && !caller.seesAll)
    throw new HttpProblem('forbidden', 'This is of no asset: it needs an API key for all of them (*/*).')
  const request = c.req.raw
  const params = c.req.param()
  checkIds(params)
  const { at: then, ...query } = parseQuery(route.query, new URL(request.url).searchParams)
  const at = typeof then === 'string' ? new Date(then) : undefined
  if (at && route.now) throw new HttpProblem('not_kept')
  const given = route.body ? await receiveBody(request, limits, bodies.roomOf(caller.id)) : undefined
  const body = route.body && checkBody(route.body, given)
  const idempotencyKey = idempotencyKeyOf(request.headers)
  const of = at ? past.at(at) : route.method === 'GET' ? flow : flow.as(byPart('http', caller.id))
  const call = { flow: of, caller, at, params, query, body, idempotencyKey, signal: request.signal, logger }
  const live = (topics: LiveTopics): Response =>
    clients.open(call, topics, { cut: cutIn(c.env), lastEventId: request.headers.get('last-event-id') ?? undefined })
  const sent = await within(limits.answerMs, route.handle({ ...call, live }))
  if (sent instanceof Response) return sent
  if (route.method !== 'GET')
    logger.info(`http: API key ${caller.id}: ${route.method} ${new URL(request.url).pathname}`)
  return jsonText(jsonOf(sent), route.status ?? 200, {})
}

/** Node's end of the connection. */
function cutIn(env: unknown): (() => void) | undefined {
  const outgoing: unknown = typeof env === 'object' && env !== null ? Reflect.get(env, 'outgoing') : undefined
  return outgoing instanceof OutgoingMessage ? () => void outgoing.destroy() : undefined
}

function mustMay(caller: Caller, action: Route['scope']): void {
  if (!caller.may(action)) throw new HttpProblem('forbidden', `This API key may not ${action}.`)
}
