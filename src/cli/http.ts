/** `flowstone http`: serves gates and runs over HTTP until it is asked to stop. */
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { isLoopback, outsideOf } from '../http/api/access.ts'
import { type GateServer, type ServedFlow, type ServeOptions, serveGates } from '../http/serve.ts'
import { type GlobalOptions, open, stopRequest, untilStopped } from './context.ts'
import { loadModule } from './load.ts'
import { checkMetrics, type MetricsCommand, serveMetricsOf } from './metrics.ts'
import { type Output, outputOf } from './output.ts'
import { wholeNumber } from './parts.ts'

export interface HttpCommand extends GlobalOptions, MetricsCommand {
  readonly port?: string
  readonly host?: string
  readonly trustProxy?: string
  readonly proxyHeader?: string
  readonly baseUrl?: string
  readonly maxBody?: string
  readonly config?: string
  readonly api?: boolean
  readonly console?: boolean
}

export async function runHttp(options: HttpCommand): Promise<void> {
  const output = outputOf(options.json === true)
  checkMetrics(options)
  using stop = stopRequest()
  const config = await httpConfig(options.config)
  const isOfUse =
    config.apiKeys !== undefined ||
    config.webhooks !== undefined ||
    options.api ||
    config.api ||
    options.console ||
    config.console
  if (!process.env.FLOWSTONE_GATE_SECRETS && !isOfUse)
    throw new InvalidError(
      "no gate secret: set FLOWSTONE_GATE_SECRETS to id:secret (at least 32 bytes, the same for all processes), such as k1:$(openssl rand -hex 32); 'flowstone dev' makes one by itself",
    )
  await using flow = await open(options, {}, { servesHttp: true })
  const settings = { ...config, ...httpOptions(options) }
  await using _metrics = await serveMetricsOf(options, output, flow)
  await using server = await serveGates(flow, settings)
  announce(output, server.url, settings)
  await untilStopped(flow, stop)
}

/** At the port that somebody asks for by name; else at `near`, or another one if that is taken. */
export async function listenNear(
  flow: ServedFlow,
  settings: ServeOptions,
  port: string | undefined,
  near: number,
  option = '--port',
): Promise<GateServer> {
  if (port !== undefined) return await serveGates(flow, { ...settings, port: wholeNumber(option, port) })
  try {
    return await serveGates(flow, { ...settings, port: near })
  } catch (error) {
    if (error instanceof FlowStoneError && error.code === 'listen_failed')
      return await serveGates(flow, { ...settings, port: 0 })
    throw error
  }
}

/** Where it listens, and for what. */
export function announce(output: Output, url: string, { apiKeys, webhooks, api, console }: ServeOptions): void {
  const lines = [
    ...(console ? [`console  ${url}/`] : []),
    `http     gates at ${url}/hooks/flowstone/signal/<token>`,
    ...(apiKeys === undefined ? [] : [`http     runs at ${url}/runs/<pipeline>/<asset>`]),
    ...(api || console ? [`http     API at ${url}/api/v1, described at ${url}/api/v1/openapi.json`] : []),
    ...Object.keys(webhooks ?? {}).map((path) => `http     webhook at ${url}${path}`),
  ]
  output.event('http', { url }, lines.join('\n'))
}

/**
 * What `flowstone dev` serves. Whoever reaches a loopback address is on this machine, and may do
 * what its user may.
 */
export function devServe(
  config: ServeOptions,
  baseUrl: string | undefined,
  output: Pick<Output, 'note'>,
): ServeOptions {
  if (!isLoopback(config.host ?? '127.0.0.1')) return config
  if (config.api !== undefined) return { console: true, ...config }
  const outside = outsideOf({ baseUrl: config.baseUrl ?? baseUrl, trustProxy: config.trustProxy })
  if (outside === undefined) return { api: { open: 'admin' }, console: true, ...config }
  output.note(`No API and no console: ${outside}, so others may reach them. Set apiKeys and api in --http-config.`)
  return config
}

/** What the file exports by default: options of `serveGates`, which looks at them. */
export async function httpConfig(file: string | undefined): Promise<ServeOptions> {
  if (file === undefined) return {}
  const { default: config } = await loadModule(file)
  if (isOptions(config)) return config
  throw new InvalidError(`${file} must export by default what serveGates takes: export default { verified: { … } }`)
}

function isOptions(value: unknown): value is ServeOptions {
  return typeof value === 'object' && value !== null
}

export function httpOptions({
  port,
  host,
  trustProxy,
  proxyHeader,
  baseUrl,
  maxBody,
  api,
  console,
}: HttpCommand): ServeOptions {
  if (proxyHeader !== undefined && proxyHeader !== 'x-forwarded-for' && proxyHeader !== 'forwarded')
    throw new InvalidError(`--proxy-header must be x-forwarded-for or forwarded, got ${proxyHeader}`)
  const base = baseUrl ?? process.env.FLOWSTONE_BASE_URL
  return {
    ...(port === undefined ? {} : { port: wholeNumber('--port', port) }),
    ...(host === undefined ? {} : { host }),
    ...(trustProxy === undefined
      ? {}
      : { trustProxy: /^\d+$/.test(trustProxy) ? Number(trustProxy) : trustProxy.split(',') }),
    ...(proxyHeader === undefined ? {} : { proxyHeader }),
    ...(base === undefined ? {} : { baseUrl: base }),
    ...(api ? { api } : {}),
    ...(console ? { console } : {}),
    ...(maxBody === undefined ? {} : { maxBodyBytes: wholeNumber('--max-body', maxBody) }),
  }
}
