/**
 * `telemetry`: what metrics and spans cost. A scatter of no-op instances as in `scatter`, without
 * either, with metrics, and with metrics and spans, in turn. The raw column is the one without, and
 * the ratio says how much of its speed is left.
 *
 * The SDK is as in production: spans in batches, sent to a server in this process that drops them.
 */
import { once } from 'node:events'
import { createServer } from 'node:http'
import { context } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { BatchSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { serveMetrics } from '../src/http/index.ts'
import { instrument } from '../src/otel/index.ts'
import { type Bench, repeated } from './bench.ts'
import type { Figure } from './figures.ts'
import { engineScatter } from './scatter.ts'
import { median } from './stats.ts'

const KINDS = ['off', 'metrics', 'metrics and spans'] as const
type Kind = (typeof KINDS)[number]

export const telemetry: Bench = {
  about: 'the scatter without telemetry, with metrics, and with metrics and spans',
  sizes: [20_000],
  async run(job) {
    const { rig, fsync, sizes, say } = job
    await using sink = await startSink()
    const figures: Figure[] = []
    for (const n of sizes) {
      const speeds: Record<Kind, number[]> = { off: [], metrics: [], 'metrics and spans': [] }
      const costs: Record<Kind, number[]> = { off: [], metrics: [], 'metrics and spans': [] }
      let turn = 0
      await repeated(job, async ({ measured, label }) => {
        // Whoever comes first meets another heap: each has each place in turn.
        const order = KINDS.map((_, i) => KINDS[(i + turn) % KINDS.length] ?? 'off')
        turn += 1
        const said: string[] = []
        for (const kind of order) {
          await using _on = await withTelemetry(kind, sink.url)
          const before = process.cpuUsage()
          const perSecond = n / ((await engineScatter(rig.url, n)) / 1000)
          const { user, system } = process.cpuUsage(before)
          said.push(`${kind} ${Math.round(perSecond).toLocaleString('en-US')}/s`)
          if (!measured) continue
          speeds[kind].push(perSecond)
          costs[kind].push((user + system) / n)
        }
        say(`telemetry n=${n} fsync=${fsync} ${label}: ${said.join(', ')}`)
      })
      for (const kind of ['metrics', 'metrics and spans'] as const) {
        figures.push({ bench: 'telemetry', n, fsync, unit: `instances/s, ${kind}`, ...beside(speeds, kind) })
        // What other processes do on the machine disturbs this less.
        figures.push({ bench: 'telemetry', n, fsync, unit: `µs of CPU/instance, ${kind}`, ...beside(costs, kind) })
      }
    }
    return figures
  },
}

/** Pairs of one repeat stand side by side, so what disturbs both falls out. */
function beside(all: Readonly<Record<Kind, readonly number[]>>, kind: Kind): Pick<Figure, 'value' | 'raw' | 'ratio'> {
  const raw = median(all.off)
  return { value: median(all[kind]), raw, ratio: median(all[kind].map((one, i) => one / (all.off[i] ?? raw))) }
}

async function withTelemetry(kind: Kind, url: string): Promise<AsyncDisposable> {
  const parts = new AsyncDisposableStack()
  if (kind === 'off') return parts
  parts.use(await serveMetrics({ port: 0 }))
  if (kind === 'metrics') return parts
  const manager = new AsyncLocalStorageContextManager().enable()
  context.setGlobalContextManager(manager)
  parts.defer(() => context.disable())
  const processor = new BatchSpanProcessor({ exporter: new OTLPTraceExporter({ url }) })
  const tracerProvider = new TracerProvider({ spanProcessors: [processor] })
  parts.defer(() => tracerProvider.shutdown())
  parts.use(instrument({ tracerProvider, meterProvider: false }))
  return parts
}

/** Takes spans, and drops them. */
async function startSink(): Promise<{ readonly url: string } & AsyncDisposable> {
  const server = createServer((request, response) => {
    request.resume().once('end', () => response.setHeader('Content-Type', 'application/json').end('{}'))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return {
    url: `http://127.0.0.1:${port}/v1/traces`,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}
