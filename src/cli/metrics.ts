/** `--metrics-port`: what a command counts, for Prometheus. */
import { InvalidError } from '../../streams/errors.ts'
import type { LoadedFlow } from '../metrics/server.ts'
import type { Output } from './output.ts'

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

/**
 * Begins to count, before what is counted begins. `flow`: the metrics of the namespace, too. Ends
 * when it is disposed.
 */
export async function serveMetricsOf(
  options: MetricsCommand,
  output: Output,
  flow?: LoadedFlow,
): Promise<AsyncDisposable | undefined> {
  checkMetrics(options)
  const { metricsPort, metricsHost } = options
  if (metricsPort === undefined) return undefined
  const { serveMetrics } = await import('../http/metrics.ts')
  const server = await serveMetrics({
    port: Number(metricsPort),
    ...(metricsHost === undefined ? {} : { host: metricsHost }),
    ...(flow ? { flow } : {}),
  })
  output.event('metrics', { url: server.url }, `metrics  ${server.url}`)
  return server
}
