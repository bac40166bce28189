/** The handler on a server of its own: Node's, with bounds on what a client may keep waiting. */
import { once } from 'node:events'
import type { Server } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { FlowStoneError, InvalidError, messageOf } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'
import { isLoopback } from './api/access.ts'
import { type ApiHandlerOptions, apiHandler, isForApi } from './api/handler.ts'
import type { ApiFlow } from './api/route.ts'
import { consoleHandler, isForConsole } from './console.ts'
import { type GateHandler, type GateHandlerOptions, gateHandler } from './gates/handler.ts'
import { isForRuns, type RunHandlerOptions, runHandler } from './runs/handler.ts'
import type { RunsOverHttp } from './runs/over-http.ts'
import { boundedServer } from './shared/bounded-server.ts'
import { type HealthAnswer, healthOf, readinessOf, type Watched } from './shared/health.ts'
import { checkRateLimit } from './shared/limits.ts'
import { HttpProblem, problemResponse } from './shared/problem.ts'
import type { GatesOverHttp } from './shared/request-context.ts'

/** Options of `serveGates`: where it listens, and those of `gateHandler` and `runHandler`. */
export interface ServeOptions
  extends Omit<GateHandlerOptions, 'rateLimit'>,
    Pick<RunHandlerOptions, 'apiKeys' | 'webhooks'> {
  /**
   * `true`: the API below `/api/v1` too, for `apiKeys`; without any, for all who reach a loopback
   * address, who may do all. `open`: what may be done without a key, also where there are keys.
   * With `trustProxy`, or a `baseUrl` that is no loopback address, others reach it: then there must
   * be `apiKeys`, and `open` may be `'viewer'` at most.
   */
  readonly api?: boolean | { readonly open?: ApiHandlerOptions['open'] }
  /**
   * `true`: the web console at `/`, and the API that it shows. Without `apiKeys`, and where others
   * than this machine reach it, whoever comes may only read.
   */
  readonly console?: boolean
  /** As of `gateHandler` and `runHandler`. */
  readonly rateLimit?: NonNullable<GateHandlerOptions['rateLimit']> & NonNullable<RunHandlerOptions['rateLimit']>
  /** Default 8080; 0: any free one. */
  readonly port?: number
  /**
   * Address to listen on. Default `'127.0.0.1'`: for the world, put a proxy that speaks TLS in
   * front, or say `'0.0.0.0'`.
   */
  readonly host?: string
}

/** A running HTTP server, from `serveGates`. It ends by `close`. */
export interface GateServer extends AsyncDisposable {
  readonly url: string
  readonly port: number
  /** Takes no more connections, lets requests end (10 s at most). Safe to call twice. */
  close(): Promise<void>
}

const CLOSE_PATIENCE_MS = 10_000

/**
 * Serves gates over HTTP, runs if there are `apiKeys` or `webhooks`, and two addresses for whoever
 * watches the process. `GET /healthz`: 200 while it can be of use again without being started anew
 * (503 once its connection is closed for good). `GET /readyz`: 200 while signals can be stored now,
 * 503 while the server is away, refuses it, or has no room. Throws FlowStoneError `listen_failed`,
 * InvalidError for options.
 */
export async function serveGates(flow: ServedFlow, options: ServeOptions = {}): Promise<GateServer> {
  const { port = 8080, host = '127.0.0.1', console: hasConsole = false, ...settings } = options
  const { api = hasConsole, ...rest } = withApi(settings, hasConsole, host)
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new InvalidError(`port must be 0 (any free one) to 65535, got ${port}`)
  if (typeof host !== 'string' || host === '')
    throw new InvalidError(`host must be an address to listen on, got ${shown(host)}`)
  const closing = new AbortController()
  const gatesAndRuns = handlerOf(flow, rest, closing.signal)
  const ofApi = api === false ? undefined : apiOf(flow, { ...rest, api, host }, closing.signal)
  const ofConsole = hasConsole ? await consoleHandler() : undefined
  const answer = async (request: Request, env: unknown): Promise<Response> => {
    // A Host header may hold anything; then the address is no address.
    const { pathname } = URL.canParse(request.url) ? new URL(request.url) : { pathname: undefined }
    if (pathname === undefined) return problemResponse(new HttpProblem('malformed_request'))
    if (pathname === '/healthz') return plain(healthOf(flow))
    if (pathname === '/readyz') return plain(await readinessOf(flow))
    if (ofConsole && isForConsole(pathname)) return ofConsole(request)
    return await (ofApi && isForApi(pathname) ? ofApi : gatesAndRuns)(request, env)
  }
  // HTTP/1.0, which some load balancers look with, needs no Host header (Node refuses HTTP/1.1
  // without one). No browser can have been at this address.
  const listener = getRequestListener(answer, { hostname: 'host.invalid' })
  // The limit of a request is above the handler's own for a body, which answers in words.
  const bounds = { headersTimeout: 10_000, requestTimeout: 60_000, keepAliveTimeout: 5000 }
  const server = boundedServer(bounds, (incoming, outgoing) => {
    // A browser keeps a connection whose answer has ended, and would hold up the end.
    outgoing.once('close', () => {
      if (closing.signal.aborted) setImmediate(() => server.closeIdleConnections())
    })
    void listener(incoming, outgoing)
  })
  server.listen(port, host)
  try {
    await once(server, 'listening')
  } catch (cause) {
    throw new FlowStoneError(
      'listen_failed',
      `cannot listen on ${host}:${port} (${messageOf(cause)}); choose another port`,
      {
        cause,
      },
    )
  }
  const address = server.address()
  const bound = typeof address === 'object' && address !== null ? address.port : port
  let ended: Promise<void> | undefined
  const close = (): Promise<void> => {
    closing.abort()
    ended ??= closed(server)
    return ended
  }
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${bound}`,
    port: bound,
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** The same as `serveGates`, under a name for all that it serves. */
export const serveHttp = serveGates

/** What is served: all that `connect()` returns has it. */
export type ServedFlow = { readonly gates: GatesOverHttp } & Watched &
  Partial<RunsOverHttp & Omit<ApiFlow, 'gates' | 'request' | 'run'>>

/** Whoever reaches a loopback address is on this machine, and may do what its user may. */
function apiOf(
  flow: ServedFlow,
  options: Omit<ServeOptions, 'port' | 'console'> & { readonly host: string },
  closing: AbortSignal,
): GateHandler {
  const {
    api,
    apiKeys,
    rateLimit = {},
    host,
    verified: _,
    page: __,
    recordHeaders: ___,
    webhooks: ____,
    ...common
  } = options
  const asked = typeof api === 'object' ? api.open : undefined
  const open = asked ?? (apiKeys === undefined && isLoopback(host) ? 'admin' : undefined)
  if (open === undefined && apiKeys === undefined)
    throw new InvalidError(
      `serveGates: api without apiKeys is only for loopback addresses, and host is ${host}; flowstone http key --role viewer makes a key`,
    )
  if (open !== undefined && open !== 'viewer' && !isLoopback(host))
    throw new InvalidError(`serveGates: api.open must be viewer where host is no loopback address (${host})`)
  if (!isWhole(flow)) throw new InvalidError('serveGates: api needs a flow, as connect() returns it')
  const { token: _____, ...rates } = rateLimit
  const keyed = apiKeys === undefined ? {} : { apiKeys }
  return apiHandler(flow, { ...common, ...keyed, ...(open === undefined ? {} : { open }), rateLimit: rates }, closing)
}

/** The console of a server that others reach is open to look at, unless there are keys. */
function withApi<T extends Pick<ServeOptions, 'api' | 'apiKeys'>>(options: T, hasConsole: boolean, host: string): T {
  if (!hasConsole) return options
  if (options.api === false) throw new InvalidError('serveGates: console needs api')
  const isOpen = options.apiKeys === undefined && !isLoopback(host) && typeof options.api !== 'object'
  return isOpen ? { ...options, api: { open: 'viewer' } } : options
}

function isWhole(flow: object): flow is ApiFlow {
  return 'inspect' in flow && 'scatter' in flow
}

/** Gates, and runs where somebody may start them. */
function handlerOf(
  flow: { readonly gates: GatesOverHttp } & Partial<RunsOverHttp>,
  options: Omit<ServeOptions, 'port' | 'host' | 'api' | 'console'>,
  closing: AbortSignal,
): GateHandler {
  const { apiKeys, webhooks, rateLimit = {}, ...ofGates } = options
  checkRateLimit(rateLimit)
  const { key, ...others } = rateLimit
  const gates = gateHandler(flow, { ...ofGates, rateLimit: others })
  if (apiKeys === undefined && webhooks === undefined) return gates
  const { verified: _, page: __, recordHeaders: ___, ...common } = ofGates
  const { request, run, as } = flow
  if (typeof request !== 'function' || typeof run !== 'function')
    throw new InvalidError('serveGates: apiKeys and webhooks need a flow, as connect() returns it')
  const ofRuns: RunHandlerOptions = {
    ...common,
    ...(apiKeys === undefined ? {} : { apiKeys }),
    ...(webhooks === undefined ? {} : { webhooks }),
    rateLimit: {
      ...(others.address === undefined ? {} : { address: others.address }),
      ...(key === undefined ? {} : { key }),
    },
  }
  const starts: RunsOverHttp = {
    request: request.bind(flow),
    run: run.bind(flow),
    ...(as ? { as: as.bind(flow) } : {}),
  }
  const runs = runHandler({ ...starts, gates: flow.gates }, ofRuns, closing)
  return async (incoming, env) => {
    const path = URL.canParse(incoming.url) ? new URL(incoming.url).pathname : ''
    return await (isForRuns(ofRuns, path) ? runs : gates)(incoming, env)
  }
}

function plain({ status, text }: HealthAnswer): Response {
  return new Response(`${text}\n`, { status, headers: { 'Cache-Control': 'no-store' } })
}

async function closed(server: Server): Promise<void> {
  const ended = once(server, 'close')
  server.close()
  server.closeIdleConnections()
  const patience = setTimeout(() => server.closeAllConnections(), CLOSE_PATIENCE_MS)
  await ended
  clearTimeout(patience)
}
