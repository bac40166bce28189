/** Client, engine or worker in a process of its own, with the SDK of OpenTelemetry. */
import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { BatchSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { asset, connect, pipeline } from '../../../src/index.ts'
import { instrument } from '../../../src/otel/index.ts'

/** A run of each asset, with all that may be in a trace. */
export const called = asset('called', {
  execute: async ({ traceparent }) => {
    // What an instrumented HTTP client does.
    const span = trace.getTracer('user').startSpan('GET /')
    span.end()
    return { traceparent, inner: span.spanContext().spanId }
  },
})
export const child = asset('child', { execute: () => 'child' })
export const parent = asset('parent', { execute: (ctx) => ctx.run(child) })
export const spread = asset('spread', {
  dependsOn: [called],
  scatter: () => Array.from({ length: 50 }, (_, i) => i),
  scatterOptions: {
    retry: { maxAttempts: 2, backoff: '10ms' },
    failureMode: 'partial',
    failureThreshold: { count: 1 },
  },
  execute: async ({ scatterKey, attempt }) => {
    trace.getTracer('user').startSpan('in instance').end()
    if (scatterKey === 7 || (scatterKey === 3 && attempt === 1)) throw new Error(`no ${scatterKey}`)
    return scatterKey
  },
})
export const asked = asset('asked', {
  dependsOn: [spread, parent],
  execute: (ctx) => ctx.signalGate({ correlationKey: 'traced' }),
  onSignal: () => 'answered',
})
export const dying = asset('dying', {
  retry: { maxAttempts: 3, backoff: '10ms' },
  execute: ({ attempt }) => {
    trace.getTracer('user').startSpan('before the end').end()
    if (attempt > 1) return 'alive'
    return new Promise<string>((resolve) =>
      // What was begun is sent by then.
      setTimeout(() => (process.env.TRACED_DIES ? process.kill(process.pid, 'SIGKILL') : resolve('alive')), 500),
    )
  },
})
export const each = asset('each', {
  scatter: () => ['a', 'b'],
  execute: (ctx) => ctx.signalGate({ correlationKey: `each ${ctx.scatterKey}` }),
  onSignal: (_ctx, payload) => {
    trace.getTracer('user').startSpan('behind the gate').end()
    return payload
  },
})
export const failing = asset('failing', {
  retry: { maxAttempts: 2, backoff: '10ms' },
  execute: () => {
    throw new TypeError('not today')
  },
})
export const traced = pipeline('traced', [called, child, parent, spread, asked, dying, each, failing])

const { TRACED_ROLE: role, TRACED_SERVER: servers, TRACED_NAMESPACE: namespace, TRACED_OTLP: url } = process.env

async function main(): Promise<void> {
  if (!servers || !namespace || !url) throw new Error('not all settings are given')
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': role }),
    spanProcessors: [new BatchSpanProcessor({ exporter: new OTLPTraceExporter({ url }), scheduledDelayMillis: 50 })],
  })
  trace.setGlobalTracerProvider(provider)
  instrument({ sampleInstances: 0.1 })
  await using flow = await connect({
    servers,
    namespace,
    gates: { secrets: [{ id: 'k1', secret: '0123456789abcdef0123456789abcdef' }] },
  })
  const stopped = new Promise<void>((resolve) => process.once('SIGTERM', () => resolve()))
  if (role === 'engine') await (await flow.engine()).active
  else if (role === 'worker') await flow.worker(traced, { ackWait: '1s' })
  else {
    for (const name of process.argv.slice(2)) {
      if (name.startsWith('signal:')) {
        await trace.getTracer('user').startActiveSpan('signal', async (span) => {
          await flow.gates.signalByCorrelationKey(name.slice('signal:'.length), 'fine')
          console.log(JSON.stringify({ name, run: '', trace: span.spanContext() }))
          span.end()
        })
        continue
      }
      const wanted = traced.assets.find((one) => one.name === name)
      if (!wanted) throw new Error(`no asset ${name}`)
      await trace.getTracer('user').startActiveSpan(`ask ${name}`, async (span) => {
        const run = await flow.materialize(wanted)
        console.log(JSON.stringify({ name, run: run.id, trace: span.spanContext() }))
        await run.result().catch(() => undefined)
        span.end()
      })
    }
    await provider.forceFlush()
    return
  }
  console.log('ready')
  await stopped
  await flow.close()
  await provider.shutdown()
}

if (role) await main()
