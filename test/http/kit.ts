import { randomBytes } from 'node:crypto'
import { connect as connectSocket } from 'node:net'
import { type GateServer, type ServeOptions, serveGates } from '../../src/http/index.ts'
import { asset, type Flow, type GateOptions, pipeline, type Run } from '../../src/index.ts'
import { freshNamespace, openStage, type Stage } from '../kit/stage.ts'

export const SECRETS = [{ id: 'k1', secret: randomBytes(32).toString('base64url') }]

export interface OpenedGate {
  readonly id: string
  readonly token: string
  readonly path: string
  readonly url: string
  readonly run: Run<unknown>
}

/** Gates that really wait, on a server that really serves them. */
export interface GateStage extends AsyncDisposable {
  readonly stage: Stage
  readonly flow: Flow
  readonly http: GateServer
  /** Another server for the same gates, with other options. Closed with the stage. */
  serve(options?: ServeOptions): Promise<GateServer>
  open(options?: Asked): Promise<OpenedGate>
}

export type Asked = GateOptions & { readonly kind?: 'signal' | 'approval' }

export async function openGateStage(natsUrl: string, options: ServeOptions = {}): Promise<GateStage> {
  const waiting = new Map<string, { asked: Asked; opened: PromiseWithResolvers<{ id: string; token: string }> }>()
  const gated = asset('gated', {
    execute: async (ctx) => {
      const wanted = waiting.get(ctx.partition ?? '')
      if (!wanted) return ctx.fail('nobody asked for this gate')
      const gate = await ctx.openGate({ timeout: '1h', ...wanted.asked })
      wanted.opened.resolve(gate)
      return gate.wait()
    },
    onSignal: (_, payload) => payload,
  })
  const gates = pipeline('http', [gated])
  const namespace = freshNamespace()
  const stage = await openStage(natsUrl, gates, { namespace, gates: { secrets: SECRETS } })
  const servers: GateServer[] = []
  const serve = async (more: ServeOptions = {}): Promise<GateServer> => {
    const server = await serveGates(stage.flow, { port: 0, ...more })
    servers.push(server)
    return server
  }
  const http = await serve(options)
  let count = 0
  return {
    stage,
    flow: stage.flow,
    http,
    serve,
    async open(asked = {}) {
      const partition = `gate-${++count}`
      const opened = Promise.withResolvers<{ id: string; token: string }>()
      waiting.set(partition, { asked, opened })
      const run = await stage.flow.materialize(gated, { partition })
      const { id, token } = await opened.promise
      const path = `/hooks/flowstone/signal/${token}`
      return { id, token, path, url: `${http.url}${path}`, run }
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(servers.map((server) => server.close()))
      await stage[Symbol.asyncDispose]()
    },
  }
}

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  // What the answer is, as JSON: a test says what it expects of it.
  readonly body: Readonly<Record<string, unknown>>
}

export async function request(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, { redirect: 'manual', ...init })
  const text = await response.text()
  const isJson = /json/.test(response.headers.get('content-type') ?? '')
  return { status: response.status, headers: response.headers, text, body: isJson ? JSON.parse(text) : {} }
}

/** A POST of JSON. */
export async function post(url: string, payload: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  return await request(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify(payload),
  })
}

/** Bytes as they are, to a server; what it answered until it closed the connection, or `enough` says that it is all. */
export async function raw(
  url: string,
  parts: readonly string[],
  enough: (answer: string) => boolean = () => false,
): Promise<string> {
  const { hostname, port } = new URL(url)
  return await new Promise<string>((resolve, reject) => {
    let answer = ''
    const socket = connectSocket(Number(port), hostname, () => {
      for (const part of parts) socket.write(part)
    })
    socket.on('data', (data) => {
      answer += data.toString('latin1')
      if (enough(answer)) socket.destroy()
    })
    socket.on('close', () => resolve(answer))
    // A server that refuses a body may reset the connection while that is still being sent.
    socket.on('error', (error) => (answer === '' ? reject(error) : resolve(answer)))
  })
}
