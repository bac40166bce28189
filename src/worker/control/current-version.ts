/**
 * The version of a pipeline that was registered last is the current one: its schedules and sensors
 * count, and runs that name no version use it. A worker whose version was registered before, and is
 * not current, has it registered again when no worker of the current version answers any more. So
 * a rollback brings its definitions back, and an old worker that restarts in a rolling deploy
 * changes nothing.
 */
import { messageOf } from '../../../streams/errors.ts'
import type { PipelineSpec } from '../../../streams/schemas.ts'
import type { Topology } from '../../../streams/topology.ts'
import { factEntry } from '../../log/entries.ts'
import { sleep } from '../../options/timer.ts'
import { lastRegistered, registeredUnder } from '../../runs/registered.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import { askWorkers } from './worker-status.ts'

/** Workers must be silent this often, one after the other: one of them may have been busy. */
const SILENT_LOOKS = 2
const LOOK_MS = 2000
const LOOK_MAX_MS = 30_000

export class CurrentVersions {
  readonly #shared: WorkerShared
  readonly #shards: number
  readonly #stop = new AbortController()
  readonly #running: Promise<void>

  /** `pipelines`: of each name one. */
  constructor(shared: WorkerShared, { shards }: Topology, pipelines: readonly PipelineSpec[]) {
    this.#shared = shared
    this.#shards = shards
    this.#running = Promise.all(pipelines.map((pipeline) => this.#follow(pipeline))).then(() => undefined)
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  /** Until the version is the current one. */
  async #follow(pipeline: PipelineSpec): Promise<void> {
    const { connection, logger } = this.#shared
    const { signal } = this.#stop
    let said = ''
    let silent = 0
    for (let pauseMs = LOOK_MS; !signal.aborted && !connection.isClosed; ) {
      try {
        const current = (await lastRegistered(this.#shared, 0, pipeline.name))?.data.version
        if (current === undefined || current === pipeline.version) return
        silent = (await this.#hasWorker(pipeline.name, current)) ? 0 : silent + 1
        if (silent >= SILENT_LOOKS && (await this.#makeCurrent(pipeline))) {
          logger.info(`version ${pipeline.version} of pipeline ${pipeline.name} is the current one again`)
          return
        }
        if (silent === 0 && said !== current)
          logger.info(
            `version ${pipeline.version} of pipeline ${pipeline.name} is not the current one, as long as workers with version ${current} answer`,
          )
        said = current
        pauseMs = silent > 0 ? LOOK_MS : Math.min(LOOK_MAX_MS, pauseMs * 1.5)
      } catch (error) {
        if (signal.aborted || connection.isClosed) return
        const why = messageOf(await connection.explained(error))
        if (why !== said) logger.warn(`pipeline ${pipeline.name}: its current version cannot be found: ${why}`)
        said = why
        await connection.ready(LOOK_MS)
      }
      await sleep(pauseMs, signal).catch(() => undefined)
    }
  }

  async #hasWorker(pipeline: string, version: string): Promise<boolean> {
    const { connection, names } = this.#shared
    const answers = await askWorkers(connection, names.workerStatus(pipeline), { run: '', asset: '' })
    return answers.some(({ versions }) => versions.includes(version))
  }

  /** On all shards, the first one last, as at first. False when another worker was faster. */
  async #makeCurrent(pipeline: PipelineSpec): Promise<boolean> {
    const { names, logOf, by } = this.#shared
    const ids = { pipeline: pipeline.name, version: pipeline.version }
    for (let shard = this.#shards - 1; shard >= 0; shard--) {
      const last = await lastRegistered(this.#shared, shard, pipeline.name)
      if (last?.data.version === pipeline.version) continue
      const expect = { seq: last?.seq ?? 0, subject: registeredUnder(names, shard, pipeline.name) }
      const entry = { ...factEntry(names, shard, { name: 'pipeline.registered', ids, data: pipeline }, by), expect }
      if ((await logOf(shard).appendOnce(entry)) !== 'stored') return false
    }
    return true
  }
}
