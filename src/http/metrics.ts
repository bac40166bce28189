/** `/metrics` for Prometheus, on a server of its own: who may see it is who may reach its port. */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { FlowStoneError, InvalidError, messageOf } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'
import { collect } from '../metrics/collect.ts'
import { CONTENT_TYPE, Registry } from '../metrics/prometheus.ts'
import { type LoadedFlow, ServerMetrics } from '../metrics/server.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { boundedServer } from './shared/bounded-server.ts'

/** Options of `serveMetrics`. */
export interface MetricsOptions {
  /** Default 9464; 0: any free one. */
  readonly port?: number
  /**
   * Address to listen on. Default `'127.0.0.1'`. There are no keys: let only your Prometheus reach
   * another one.
   */
  readonly host?: string
  /** For the metrics of the namespace, too: queues, engines, streams. */
  readonly flow?: LoadedFlow
}

/** A running server of metrics, from `serveMetrics`. It ends by `close`. */
export interface MetricsServer extends AsyncDisposable {
  readonly url: string
  readonly port: number
  /** Ends the server, and the counting. Safe to call twice. */
  close(): Promise<void>
}

const OPTIONS: OptionNames<MetricsOptions> = { port: true, host: true, flow: true }

/**
 * Counts what happens in this process from now on, and serves it at `/metrics` in the text format
 * of Prometheus. Needs no other package. Call it before the engine or worker of the process starts.
 * Throws FlowStoneError `listen_failed`, InvalidError for options.
 */
export async function serveMetrics(options: MetricsOptions = {}): Promise<MetricsServer> {
  refuseUnknown('serveMetrics', options, OPTIONS)
  return await serveRegistry(new Registry(), options)
}

/** As `serveMetrics`, of a registry that may show what other processes have counted. */
export async function serveRegistry(registry: Registry, options: MetricsOptions): Promise<MetricsServer> {
  const { port = 9464, host = '127.0.0.1', flow } = options
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new InvalidError(`serveMetrics: port must be 0 (any free one) to 65535, got ${shown(port)}`)
  if (typeof host !== 'string' || host === '')
    throw new InvalidError(`serveMetrics: host must be an address to listen on, got ${shown(host)}`)
  if (flow !== undefined && typeof flow.inspect?.load !== 'function')
    throw new InvalidError('serveMetrics: flow must be a flow, as connect() returns it')
  const ofServer = flow && new ServerMetrics(flow)
  const server = boundedServer({ headersTimeout: 10_000, requestTimeout: 10_000 }, (request, response) => {
    answer(request, response, async () => registry.text(await ofServer?.read()))
  })
  server.listen(port, host)
  try {
    await once(server, 'listening')
  } catch (cause) {
    const why = `cannot listen on ${host}:${port} (${messageOf(cause)}); choose another port`
    throw new FlowStoneError('listen_failed', why, { cause })
  }
  const end = collect(registry)
  // Alone it keeps no process.
  server.unref()
  const address = server.address()
  const bound = typeof address === 'object' && address !== null ? address.port : port
  let closed: Promise<void> | undefined
  const close = (): Promise<void> => {
    closed ??= new Promise((resolve) => {
      end()
      server.close(() => resolve())
      server.closeAllConnections()
    })
    return closed
  }
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${bound}/metrics`
  return { url, port: bound, close, [Symbol.asyncDispose]: close }
}

function answer({ method, url }: IncomingMessage, response: ServerResponse, text: () => Promise<string>): void {
  const say = (status: number, body: string, headers: Record<string, string> = {}): void => {
    response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-store', ...headers })
    response.end(method === 'HEAD' ? undefined : body)
  }
  if (url?.split('?')[0] !== '/metrics') say(404, 'metrics are at /metrics\n')
  else if (method !== 'GET' && method !== 'HEAD') say(405, 'only GET\n', { Allow: 'GET, HEAD' })
  else
    text().then(
      (body) => say(200, body, { 'Content-Type': CONTENT_TYPE }),
      (error: unknown) => say(500, `${messageOf(error)}\n`),
    )
}
