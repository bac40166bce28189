/** A receiver of OTLP over HTTP, in JSON: what exporters of the SDK send, as tests read it. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import { z } from 'zod'

const value = z.object({
  stringValue: z.string().optional(),
  intValue: z.union([z.string(), z.number()]).optional(),
  doubleValue: z.number().optional(),
})
const attributes = z.array(z.object({ key: z.string(), value })).default([])
const ids = { traceId: z.string().length(32), spanId: z.string().length(16) }
const span = z.object({
  ...ids,
  parentSpanId: z.string().optional(),
  traceState: z.string().optional(),
  name: z.string(),
  startTimeUnixNano: z.string(),
  endTimeUnixNano: z.string(),
  attributes,
  links: z.array(z.object(ids)).default([]),
  events: z.array(z.object({ name: z.string(), attributes })).default([]),
  status: z.object({ code: z.number().optional(), message: z.string().optional() }).default({}),
})
const body = z.object({
  resourceSpans: z.array(
    z.object({
      resource: z.object({ attributes }).default({ attributes: [] }),
      scopeSpans: z.array(z.object({ scope: z.object({ name: z.string() }), spans: z.array(span) })),
    }),
  ),
})

export interface ReceivedSpan {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string | undefined
  readonly traceState: string | undefined
  readonly name: string
  /** Which process sent it: its attribute service.name. */
  readonly service: string
  readonly scope: string
  readonly fromMs: number
  readonly toMs: number
  readonly attributes: Readonly<Record<string, string | number>>
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[]
  readonly exceptions: readonly string[]
  readonly isError: boolean
}

export interface OtlpReceiver extends AsyncDisposable {
  readonly url: string
  readonly spans: readonly ReceivedSpan[]
}

export async function otlpReceiver(): Promise<OtlpReceiver> {
  const spans: ReceivedSpan[] = []
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      if (request.url === '/v1/traces') spans.push(...spansIn(JSON.parse(Buffer.concat(chunks).toString('utf8'))))
      response.setHeader('Content-Type', 'application/json').end('{}')
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return {
    url: `http://127.0.0.1:${address.port}/v1/traces`,
    spans,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

function spansIn(received: unknown): ReceivedSpan[] {
  return body.parse(received).resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const service = String(flat(resource.attributes)['service.name'])
    return scopeSpans.flatMap(({ scope, spans }) =>
      spans.map((one) => ({
        traceId: one.traceId,
        spanId: one.spanId,
        parentSpanId: one.parentSpanId || undefined,
        traceState: one.traceState || undefined,
        name: one.name,
        service,
        scope: scope.name,
        fromMs: Number(BigInt(one.startTimeUnixNano) / 1_000_000n),
        toMs: Number(BigInt(one.endTimeUnixNano) / 1_000_000n),
        attributes: flat(one.attributes),
        links: one.links,
        exceptions: one.events
          .filter(({ name }) => name === 'exception')
          .map((event) => String(flat(event.attributes)['exception.message'])),
        isError: one.status.code === 2,
      })),
    )
  })
}

function flat(list: z.infer<typeof attributes>): Record<string, string | number> {
  return Object.fromEntries(
    list.map(({ key, value: { stringValue, intValue, doubleValue } }) => [
      key,
      stringValue ?? (intValue === undefined ? (doubleValue ?? '') : Number(intValue)),
    ]),
  )
}

/**
 * All spans of a trace, by id. Throws for one that names a parent that is not there, and where
 * there is not just one first span.
 */
export function treeOf(spans: readonly ReceivedSpan[], traceId: string): Map<string, ReceivedSpan> {
  const own = new Map(spans.filter((span) => span.traceId === traceId).map((span) => [span.spanId, span]))
  const orphans = [...own.values()].filter(({ parentSpanId }) => parentSpanId !== undefined && !own.has(parentSpanId))
  if (orphans.length > 0)
    throw new Error(
      `without their parent: ${orphans.map(({ name, attributes }) => `${name} ${JSON.stringify(attributes)}`).join(', ')}`,
    )
  const first = [...own.values()].filter(({ parentSpanId }) => parentSpanId === undefined)
  if (first.length !== 1) throw new Error(`first spans: ${first.map(({ name }) => name).join(', ') || 'none'}`)
  return own
}
