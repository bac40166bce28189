import type { HistoryEntry, Worker, WorkerOptions } from '../../src/index.ts'
import {
  type ConnectOptions,
  connect,
  type Engine,
  type EngineOptions,
  type Flow,
  type Logger,
  type Pipeline,
} from '../../src/index.ts'
import { collect } from './collect.ts'

let count = 0

/** A namespace that no other test uses, also on a server that was there before. */
export function freshNamespace(): string {
  count += 1
  return `t${process.pid}-${Date.now().toString(36)}-${count}`
}

/** A logger that keeps the words, so that a test can read them and the terminal stays clean. */
export function listeningLogger(): Logger & { readonly lines: string[] } {
  const lines: string[] = []
  const listen = (message: string) => {
    lines.push(message)
  }
  return { lines, debug: listen, info: listen, warn: listen, error: listen }
}

export interface StageOptions extends Omit<ConnectOptions, 'servers' | 'logger'> {
  /** Whether an engine runs. Default true. */
  engine?: boolean
  /** Options of the worker that runs the pipelines; false: none. */
  worker?: WorkerOptions | false
  reconcileMs?: number
  sealAfter?: EngineOptions['sealAfter']
  snapshotEvery?: number
  proof?: EngineOptions['proof']
  retention?: EngineOptions['retention']
}

/**
 * An engine and a worker that run in a namespace of their own: `await using stage = await
 * openStage(server.url, pipeline)`.
 */
export interface Stage extends AsyncDisposable {
  readonly flow: Flow
  readonly engine: Engine | undefined
  readonly worker: Worker | undefined
  readonly namespace: string
  /** What was logged. */
  readonly lines: readonly string[]
  /** Another connection to the same namespace; closed with the stage. */
  connect(options?: Omit<ConnectOptions, 'servers' | 'namespace'>): Promise<Flow>
}

export async function openStage(
  url: string,
  pipelines: Pipeline | readonly Pipeline[],
  options: StageOptions = {},
): Promise<Stage> {
  const { engine: wantsEngine = true, worker: workerOptions = {}, ...rest } = options
  const { reconcileMs, sealAfter, snapshotEvery, proof, retention, ...settings } = rest
  const logger = listeningLogger()
  const namespace = settings.namespace ?? freshNamespace()
  const flow = await connect({ ...settings, servers: url, namespace, logger })
  // Engines and workers make it by themselves.
  if (!wantsEngine && workerOptions === false) await flow.setup()
  const others: Flow[] = []
  const engineOptions: EngineOptions = {
    ...(reconcileMs === undefined ? {} : { reconcileMs }),
    ...(sealAfter === undefined ? {} : { sealAfter }),
    ...(snapshotEvery === undefined ? {} : { snapshotEvery }),
    ...(proof === undefined ? {} : { proof }),
    ...(retention === undefined ? {} : { retention }),
  }
  const engine = wantsEngine ? await flow.engine(engineOptions) : undefined
  const worker = workerOptions === false ? undefined : await flow.worker(pipelines, workerOptions)
  await engine?.active
  return {
    flow,
    engine,
    worker,
    namespace,
    lines: logger.lines,
    connect: async (more = {}) => {
      const other = await connect({ logger, ...more, servers: url, namespace })
      others.push(other)
      return other
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(others.map((other) => other.close()))
      await flow.close()
    },
  }
}

/** A run's facts, as far as they are on the log. */
export async function factsOf(flow: Flow, run: string): Promise<HistoryEntry[]> {
  return await collect(flow.history(run))
}

/**
 * The kinds of a run's facts, in order, without what only some runs have: `asset.started` is
 * written when code takes a while.
 */
export async function kindsOf(flow: Flow, run: string): Promise<string[]> {
  const facts = await factsOf(flow, run)
  return facts.map(({ kind }) => kind).filter((kind) => kind !== 'asset.started')
}

/** What a promise was rejected with; fails when it was not. */
export async function rejection(promise: Promise<unknown>): Promise<Error & { code?: unknown; asset?: unknown }> {
  let value: unknown
  try {
    value = await promise
  } catch (error) {
    if (error instanceof Error) return error
    throw new Error(`rejected with what is no error: ${String(error)}`)
  }
  throw new Error(`not rejected, but brought ${JSON.stringify(value)?.slice(0, 200)}`)
}
