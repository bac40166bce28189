/**
 * Whether the work that this worker holds is still wanted: its run or scatter may have ended, or be
 * paused. Notifications report that at once. They are hints: one may be lost, or come before its
 * task. So the log is read too:
 *
 * - before a task runs that waited, came again, is a retry, or was enqueued by an engine that was
 *   behind;
 * - before a task of a run or scatter runs that a notification named, and for the first task of
 *   each scatter;
 * - every second for what runs.
 */
import type { Subscription } from '@nats-io/nats-core'
import { CancelledError } from '../../../streams/errors.ts'
import { factPath } from '../../../streams/facts.ts'
import { assetName, parseRunId } from '../../../streams/ids.ts'
import type { Task } from '../../../streams/tasks.ts'
import { isSealed } from '../../log/history.ts'
import { listen } from '../../log/listen.ts'
import { directGet } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'

/** Work that has waited this long may have ended meanwhile: worth a look before it is run. */
export const STALE_MS = 500
const LOOK_MS = 1000
const REMEMBERED = 1000

export type Wanted = 'wanted' | 'over' | 'paused'

export class Watch {
  readonly #shared: WorkerShared
  readonly #held: ReadonlyMap<string, InFlightTask>
  readonly #openBarriers = new Set<string>()
  /**
   * Runs, and assets of runs, for which a notification came: their tasks are looked up, however
   * fresh.
   */
  readonly #reported = new Set<string>()
  #subscriptions: Subscription[] = []
  #timer: NodeJS.Timeout | undefined
  #looking = false

  constructor(shared: WorkerShared, held: ReadonlyMap<string, InFlightTask>) {
    this.#shared = shared
    this.#held = held
  }

  start(): void {
    const { connection, names } = this.#shared
    const onNotification = (kind: 'abort' | 'pause', heard: (run: string, asset: string) => void): Subscription =>
      listen(connection.nc, names.notification(kind, '*'), (message) =>
        heard(message.subject.slice(message.subject.lastIndexOf('.') + 1), message.string()),
      )
    this.#subscriptions = [
      onNotification('abort', (run, asset) => this.#abort(run, asset)),
      onNotification('pause', (run, asset) => this.#pause(run, asset)),
    ]
    this.#timer = setInterval(() => void this.#look(), LOOK_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
    if (!this.#shared.connection.isClosed) for (const subscription of this.#subscriptions) subscription.unsubscribe()
  }

  /** Asked before a task is run. */
  async wanted(held: InFlightTask, task: Task): Promise<Wanted> {
    const barrier = `${task.run}.${task.asset}`
    // A retry's message is as young as its schedule's end, however long it waited.
    const retry = (task.kind === 'lease' ? task.ordinal : task.attempt) > 1
    const fresh =
      held.count === 1 &&
      held.ageMs < STALE_MS &&
      !held.isStale &&
      !retry &&
      !this.#reported.has(task.run) &&
      !this.#reported.has(barrier) &&
      (task.kind !== 'lease' || this.#openBarriers.has(barrier))
    if (fresh) return 'wanted'
    const found = await this.onLog(held.shard, task)
    if (found === 'wanted' && task.kind === 'lease') remember(this.#openBarriers, barrier)
    return found
  }

  /** As the log has it. */
  async onLog(shard: number, task: Task): Promise<Wanted> {
    const ids = { run: parseRunId(task.run).id, asset: assetName(task.asset) }
    if (!isInstances(task)) {
      const [end, left] = await Promise.all([
        this.#last(shard, `asset.${task.pipeline}.${ids.asset}.${ids.run}.end.*`),
        this.#isLeft(shard, task),
      ])
      return end !== undefined || left || (await isSealed(this.#shared, task.run)) ? 'over' : 'wanted'
    }
    const [closed, hold] = await Promise.all([
      this.#last(shard, factPath('scatter.closed', ids)),
      this.#last(shard, `scatter.${ids.run}.${ids.asset}.hold.*`),
    ])
    if (closed !== undefined || (await isSealed(this.#shared, task.run))) return 'over'
    return hold?.endsWith('.paused') ? 'paused' : 'wanted'
  }

  /** Whether the run has left the version that an attempt was planned with (`flow.adopt`). */
  async #isLeft(shard: number, task: Task): Promise<boolean> {
    if (task.kind !== 'execute' && task.kind !== 'scatter') return false
    const { connection, names } = this.#shared
    const last_by_subj = names.fact(shard, `run.${task.run}.adopted.*`)
    const found = await connection.read((nc) => directGet(nc, names.log(shard), { last_by_subj }))
    const fact = found && factOf(names, shard, found)
    return fact?.name === 'run.adopted' && (fact.data.replanned[task.asset] ?? 0) > task.attempt
  }

  /** The subject of the last fact under a path. */
  async #last(shard: number, path: string): Promise<string | undefined> {
    const { connection, names } = this.#shared
    const found = await connection.read((nc) =>
      directGet(nc, names.log(shard), { last_by_subj: names.fact(shard, path) }),
    )
    return found?.subject
  }

  #abort(run: string, asset: string): void {
    remember(this.#reported, asset === '' ? run : `${run}.${asset}`)
    for (const { task, abort, isStoring } of this.#held.values()) {
      if (task.run !== run || (asset !== '' && task.asset !== asset)) continue
      // Its code has run, and its own outcome may be the end. What is chained to it goes on.
      if (asset !== '' && isStoring) continue
      this.#openBarriers.delete(`${run}.${task.asset}`)
      abort.abort(
        new CancelledError(`the work was ended: ${asset === '' ? 'its run' : asset} is cancelled or has failed`),
      )
    }
  }

  #pause(run: string, asset: string): void {
    remember(this.#reported, `${run}.${asset}`)
    for (const held of this.#leases(run, asset)) held.pause()
  }

  #abortLeases(run: string, asset: string): void {
    this.#openBarriers.delete(`${run}.${asset}`)
    for (const { abort } of this.#leases(run, asset))
      abort.abort(new CancelledError(`the scatter of ${asset} is closed`))
  }

  *#leases(run: string, asset: string): Generator<InFlightTask> {
    for (const held of this.#held.values())
      if (isInstances(held.task) && held.task.run === run && held.task.asset === asset) yield held
  }

  /** One look for the leases and one for the attempts of each asset of each run. */
  async #look(): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    const seen = new Set<string>()
    for (const held of [...this.#held.values()]) {
      const { shard, task, abort } = held
      const leases = isInstances(task)
      const key = `${task.run}.${task.asset}.${leases}`
      if (seen.has(key) || abort.signal.aborted || held.isYoungerThan(LOOK_MS / 2)) continue
      seen.add(key)
      try {
        const found = await this.onLog(shard, task)
        if (found === 'paused') this.#pause(task.run, task.asset)
        if (found !== 'over') continue
        if (!leases) this.#abort(task.run, task.asset)
        // A closed scatter ends leases and nothing else: its gather may be in this worker's hands.
        else this.#abortLeases(task.run, task.asset)
      } catch {
        // Asked again at the next look.
      }
    }
    this.#looking = false
  }
}

/** Work that ends with the scatter: leases, and what continues after the gates of instances. */
function isInstances({ kind }: Task): boolean {
  return kind === 'lease' || kind === 'resume'
}

function remember(set: Set<string>, entry: string): void {
  if (set.size > REMEMBERED) set.clear()
  set.add(entry)
}
