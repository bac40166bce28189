import { randomBytes } from 'node:crypto'
import { connect as connectSocket } from 'node:net'
import { type GateServer, type ServeOptions, serveGates } from '../../src/http/index.ts'
import {
  type ApprovalOptions,
  asset,
  type Flow,
  type GateOptions,
  type GateView,
  pipeline,
  type Run,
} from '../../src/index.ts'
import { openStage, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

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

/** `approval`: a person's decision; else a gate that takes anything. */
export type Asked = GateOptions & { readonly approval?: Omit<ApprovalOptions, keyof GateOptions> }

export async function openGateStage(natsUrl: string, options: ServeOptions = {}): Promise<GateStage> {
  const wanted = new Map<string | undefined, Asked>()
  const gated = asset('gated', {
    execute: (ctx) => {
      const { approval, ...gate } = wanted.get(ctx.partition) ?? {}
      return approval ? ctx.approval({ ...gate, ...approval }) : ctx.signalGate(gate)
    },
    onSignal: (_, payload) => payload,
  })
  const gates = pipeline('http', [gated])
  const stage = await openStage(natsUrl, gates, { gates: { secrets: SECRETS } })
  const { flow } = stage
  const servers: GateServer[] = []
  const serve = async (more: ServeOptions = {}): Promise<GateServer> => {
    const server = await serveGates(flow, { port: 0, ...more })
    servers.push(server)
    return server
  }
  const http = await serve(options)
  return {
    stage,
    flow,
    http,
    serve,
    async open(asked = {}) {
      const partition = `gate-${wanted.size + 1}`
      wanted.set(partition, asked)
      const run: Run<unknown> = await flow.materialize(gated, { partition })
      let gate: GateView | undefined
      await until('the gate is open', async () => {
        gate = (await flow.gates.list(run.id))[0]
        return gate !== undefined
      })
      const id = gate?.id ?? ''
      const token = await flow.gates.token(id)
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

/**
 * Bytes as they are, to a server; what it answered until it closed the connection, or `enough` says
 * that it is all.
 */
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
