/** `--metrics-port`: what a command counts, for Prometheus. */
import { InvalidError } from '../../streams/errors.ts'
import type { Registry } from '../metrics/prometheus.ts'
import type { LoadedFlow } from '../metrics/server.ts'
import { every } from '../options/timer.ts'
import type { Output } from './output.ts'
import type { FromWorker } from './supervise.ts'

/** In the environment of a worker: whoever started it serves what it counts. */
export const DEV_METRICS = 'FLOWSTONE_DEV_METRICS'
const REPORT_MS = 1000

export interface MetricsCommand {
  readonly metricsPort?: string
  readonly metricsHost?: string
}

/** Throws InvalidError for an option that cannot be right. */
export function checkMetrics({ metricsPort, metricsHost }: MetricsCommand): void {
  if (metricsPort === undefined && metricsHost !== undefined)
    throw new InvalidError('--metrics-host needs --metrics-port')
  if (metricsPort !== undefined && (!/^\d{1,5}$/.test(metricsPort) || Number(metricsPort) > 65_535))
    throw new InvalidError(`--metrics-port must be 0 (any free one) to 65535, got ${metricsPort}`)
}

/** A server of metrics, and where it has them from. It ends when it is disposed. */
export interface ServedMetrics extends AsyncDisposable {
  readonly registry: Registry
}

/** Begins to count, before what is counted begins. `flow`: the metrics of the namespace, too. */
export async function serveMetricsOf(
  options: MetricsCommand,
  output: Output,
  flow?: LoadedFlow,
): Promise<ServedMetrics | undefined> {
  checkMetrics(options)
  const { metricsPort, metricsHost } = options
  if (metricsPort === undefined) return undefined
  const { serveRegistry } = await import('../http/metrics.ts')
  const { Registry } = await import('../metrics/prometheus.ts')
  const registry = new Registry()
  const server = await serveRegistry(registry, {
    port: Number(metricsPort),
    ...(metricsHost === undefined ? {} : { host: metricsHost }),
    ...(flow ? { flow } : {}),
  })
  output.event('metrics', { url: server.url }, `metrics  ${server.url}`)
  return { registry, [Symbol.asyncDispose]: () => server.close() }
}

/**
 * Counts, and tells whoever started this process, each second and at the end. `tell` resolves when
 * that was sent.
 */
export async function reportMetrics(tell: (message: FromWorker) => Promise<void>): Promise<AsyncDisposable> {
  const { collect } = await import('../metrics/collect.ts')
  const { Registry } = await import('../metrics/prometheus.ts')
  const registry = new Registry()
  const end = collect(registry)
  let last = ''
  const report = async (): Promise<void> => {
    const counted = registry.counted()
    const now = JSON.stringify(counted)
    if (now === last) return
    last = now
    await tell({ counted })
  }
  const timer = every(REPORT_MS, () => void report(), { unref: true })
  return {
    [Symbol.asyncDispose]: async () => {
      timer.cancel()
      end()
      await report()
    },
  }
}
