/** The handler on a server of its own: Node's, with bounds on what a client may keep waiting. */
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { FlowStoneError, InvalidError, messageOf } from '../../streams/errors.ts'
import { type GateHandler, type GateHandlerOptions, gateHandler } from './gates/handler.ts'
import { isForRuns, type RunHandlerOptions, runHandler } from './runs/handler.ts'
import type { RunsOverHttp } from './runs/over-http.ts'
import { checkRateLimit } from './shared/limits.ts'
import { HttpProblem, problemResponse } from './shared/problem.ts'
import type { GatesOverHttp } from './shared/request-context.ts'

/** Options of `serveGates`: where it listens, and those of `gateHandler` and `runHandler`. */
export interface ServeOptions
  extends Omit<GateHandlerOptions, 'rateLimit'>,
    Pick<RunHandlerOptions, 'apiKeys' | 'webhooks'> {
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
const READY_MS = 1000

/** What of a flow tells how it is. */
export interface Watched {
  readonly connection?: { readonly state: 'connected' | 'away' | 'closed' }
  readonly ready?: (timeoutMs?: number) => Promise<void>
}

/**
 * Serves gates over HTTP, runs if there are `apiKeys` or `webhooks`, and two addresses for whoever
 * watches the process. `GET /healthz`: 200 while it can be of use again without being started anew
 * (503 once its connection is closed for good). `GET /readyz`: 200 while signals can be stored now,
 * 503 while the server is away, refuses it, or has no room. Throws FlowStoneError `listen_failed`,
 * InvalidError for options.
 */
export async function serveGates(
  flow: { readonly gates: GatesOverHttp } & Watched & Partial<RunsOverHttp>,
  options: ServeOptions = {},
): Promise<GateServer> {
  const { port = 8080, host = '127.0.0.1', ...rest } = options
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new InvalidError(`port must be 0 (any free one) to 65535, got ${port}`)
  if (typeof host !== 'string' || host === '')
    throw new InvalidError(`host must be an address to listen on, got ${JSON.stringify(host)}`)
  const closing = new AbortController()
  const handler = handlerOf(flow, rest, closing.signal)
  const answer = async (request: Request, env: unknown): Promise<Response> => {
    // A Host header may hold anything; then the address is no address.
    const { pathname } = URL.canParse(request.url) ? new URL(request.url) : { pathname: undefined }
    if (pathname === undefined) return problemResponse(new HttpProblem('malformed_request'))
    if (pathname === '/healthz') return health(flow)
    if (pathname === '/readyz') return await readiness(flow)
    return await handler(request, env)
  }
  // HTTP/1.0, which some load balancers look with, needs no Host header (Node refuses HTTP/1.1
  // without one). No browser can have been at this address.
  const listener = getRequestListener(answer, { hostname: 'host.invalid' })
  const server = createServer({
    headersTimeout: 10_000,
    // How often those two are looked at; Node's own is 30 s.
    connectionsCheckingInterval: 2000,
    // Above the handler's own limit for a body, which answers in words.
    requestTimeout: 60_000,
    keepAliveTimeout: 5000,
    maxHeaderSize: 16_384,
  })
  server.on('request', (incoming, outgoing) => void listener(incoming, outgoing))
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

/** Gates, and runs where somebody may start them. */
function handlerOf(
  flow: { readonly gates: GatesOverHttp } & Partial<RunsOverHttp>,
  options: Omit<ServeOptions, 'port' | 'host'>,
  closing: AbortSignal,
): GateHandler {
  const { apiKeys, webhooks, rateLimit = {}, ...ofGates } = options
  checkRateLimit(rateLimit)
  const { key, ...others } = rateLimit
  const gates = gateHandler(flow, { ...ofGates, rateLimit: others })
  if (apiKeys === undefined && webhooks === undefined) return gates
  const { verified: _, page: __, recordHeaders: ___, ...common } = ofGates
  const { request, run } = flow
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
  const starts: RunsOverHttp = { request: request.bind(flow), run: run.bind(flow) }
  const runs = runHandler({ ...starts, gates: flow.gates }, ofRuns, closing)
  return async (incoming, env) => {
    const path = URL.canParse(incoming.url) ? new URL(incoming.url).pathname : ''
    return await (isForRuns(ofRuns, path) ? runs : gates)(incoming, env)
  }
}

function health({ connection }: Watched): Response {
  return connection?.state === 'closed'
    ? plain(503, 'the connection to nats-server is closed for good')
    : plain(200, 'ok')
}

/** Why not, in a few words: who may see it is who may reach this port. */
async function readiness(flow: Watched): Promise<Response> {
  try {
    await flow.ready?.(READY_MS)
    return plain(200, 'ready')
  } catch (error) {
    return plain(503, messageOf(error))
  }
}

function plain(status: number, text: string): Response {
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
