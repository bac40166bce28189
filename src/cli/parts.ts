/** Commands that run a part until they are asked to stop: worker, engine. */
import { counted } from '../../streams/amounts.ts'
import { InvalidError } from '../../streams/errors.ts'
import type { EngineOptions } from '../engine/engine.ts'
import { parseDuration } from '../options/duration.ts'
import { every } from '../options/timer.ts'
import { WORKER_DEFAULTS, type WorkerOptions } from '../worker/options.ts'
import { DEV_SERVER, type GlobalOptions, open, stopRequest, untilStopped } from './context.ts'
import { showFailures } from './failures.ts'
import { fileOf } from './file-of.ts'
import { type HealthCommand, serveHealth } from './health.ts'
import { loadFile, type WorkerFile, watchLoads } from './load.ts'
import { checkMetrics, DEV_METRICS, type MetricsCommand, reportMetrics, serveMetricsOf } from './metrics.ts'
import { outputOf } from './output.ts'
import { endWithSupervisor, type FromWorker, isSupervised } from './supervise.ts'
import { onlyConfig } from './worker-config.ts'

const LOADING_MS = 10_000
const ALIVE_MS = 1000

export interface WorkerCommand extends GlobalOptions, HealthCommand, MetricsCommand {
  readonly concurrency?: string
  readonly queues?: string
  readonly drain?: string
}

export async function runWorker(files: readonly string[], options: WorkerCommand): Promise<void> {
  const output = outputOf(options.json === true)
  const given: WorkerOptions = {
    ...(options.concurrency === undefined ? {} : { concurrency: wholeNumber('--concurrency', options.concurrency) }),
    ...(options.queues === undefined ? {} : { queues: options.queues.split(',') }),
    ...(options.drain === undefined ? {} : { drainTimeout: parseDuration('--drain', options.drain) }),
  }
  using stop = stopRequest()
  // A channel that is closed throws: its supervisor is gone, and that is heard by itself.
  const tell = (message: FromWorker): Promise<void> =>
    new Promise((resolve) => {
      if (process.connected && process.send) process.send(message, undefined, undefined, () => resolve())
      else resolve()
    })
  let hasDrainTime = (_: number): void => undefined
  if (isSupervised) {
    hasDrainTime = endWithSupervisor()
    if (process.env[DEV_SERVER]) watchLoads((loaded) => void tell({ loaded }))
    // From then on its supervisor wants to know whether its event loop still turns.
    void stop.asked.then(() => every(ALIVE_MS, () => void tell({ alive: true }), { unref: true }))
  }
  await using health = await serveHealth(options, output)
  void stop.asked.then(() => health.stops())
  const loaded = await untilLoaded(files, stop.asked)
  if (!loaded) return
  const pipelines = loaded.flatMap((one) => one.pipelines)
  const { io, logger, hooks: _, ...config } = onlyConfig(loaded)
  const drainMs = parseDuration(
    'worker: drainTimeout',
    given.drainTimeout ?? config.drainTimeout ?? WORKER_DEFAULTS.drainTimeout,
  )
  hasDrainTime(drainMs)
  await using _metrics = await serveMetricsOf(options, output)
  await using _report = isSupervised && process.env[DEV_METRICS] ? await reportMetrics(tell) : undefined
  await using flow = await open(options, { ...(io ? { io } : {}), ...(logger ? { logger } : {}) })
  // What fails is on the log; who develops wants to see it here.
  using _failures = process.env[DEV_SERVER] ? showFailures(output) : undefined
  const worker = await flow.worker(pipelines, { ...config, ...given, drainTimeout: drainMs, ownsProcess: true })
  const assets = pipelines.map((pipeline) => ({
    pipeline: pipeline.name,
    assets: pipeline.assets.flatMap(({ name, definition }) => (definition.spec.internal ? [] : [name])),
    ...(pipeline.spec.schedules ? { schedules: pipeline.spec.schedules.map(({ name }) => name) } : {}),
    ...(pipeline.spec.sensors ? { sensors: pipeline.spec.sensors.map(({ name }) => name) } : {}),
  }))
  output.event(
    'worker',
    { id: worker.id, pipelines: assets },
    `worker   ${worker.id} active: ${assets.map((one) => `${one.pipeline} (${one.assets.join(', ')})`).join('; ')}`,
  )
  health.watch(flow)
  void tell({ ready: true, drainMs })
  await untilStopped(flow, stop)
  if (worker.busy > 0)
    output.event('stopping', { tasks: worker.busy }, `worker   finishing ${counted(worker.busy, 'task')}`)
}

/**
 * Undefined when it was asked to stop first: a top-level await that never settles must not keep it.
 */
async function untilLoaded(files: readonly string[], stopped: Promise<string>): Promise<WorkerFile[] | undefined> {
  const slow = setTimeout(() => {
    console.error(`flowstone: ${files.join(', ')} is still being loaded; does a top-level await there never settle?`)
  }, LOADING_MS)
  try {
    const loading = Promise.all(files.map(loadFile))
    return await Promise.race([loading, stopped.then(() => undefined)])
  } finally {
    clearTimeout(slow)
  }
}

export interface EngineCommand extends GlobalOptions, HealthCommand, MetricsCommand {
  readonly shards?: string
  readonly sealAfter?: string
  readonly proofKey?: string
  /** False with --no-proof. */
  readonly proof?: boolean
  readonly snapshotEvery?: string
  readonly retain?: string
  readonly retainFailed?: string
  readonly archive?: string
}

/** What is no duration is refused by its name. */
function engineOptions(options: EngineCommand): EngineOptions {
  const { sealAfter, retain, retainFailed, archive, proofKey, snapshotEvery } = options
  const proof = proofKey === undefined ? options.proof : { key: fileOf('--proof-key', proofKey) }
  const retention = {
    ...(retain === undefined ? {} : { runs: retain }),
    ...(retainFailed === undefined ? {} : { failed: retainFailed }),
    ...(archive === undefined ? {} : { archive }),
  }
  return {
    ...(sealAfter === undefined ? {} : { sealAfter }),
    ...(proof === undefined ? {} : { proof }),
    ...(snapshotEvery === undefined ? {} : { snapshotEvery: wholeNumber('--snapshot-every', snapshotEvery) }),
    ...(Object.keys(retention).length === 0 ? {} : { retention }),
  } as EngineOptions
}

export async function runEngine(options: EngineCommand): Promise<void> {
  const output = outputOf(options.json === true)
  checkMetrics(options)
  using stop = stopRequest()
  await using health = await serveHealth(options, output)
  void stop.asked.then(() => health.stops())
  await using flow = await open(
    options,
    options.shards === undefined ? {} : { shards: wholeNumber('--shards', options.shards) },
  )
  await using _metrics = await serveMetricsOf(options, output, flow)
  const engine = await flow.engine(engineOptions(options))
  const { id } = engine
  health.watch(flow)
  output.event('engine', { id, active: false }, `engine   ${id} started; it works once no other engine does`)
  const sayActive = (): void => output.event('engine', { id, active: true }, `engine   ${id} active`)
  // It refuses to work: somebody must do something first, and the error says what.
  const refused = new Promise<never>((_, reject) => void engine.active.then(sayActive, reject))
  await Promise.race([untilStopped(flow, stop), refused])
}

export function wholeNumber(option: string, text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidError(`${option} must be a whole number, got ${text}`)
  return Number(text)
}
