/**
 * The clock of schedules and sensors, in the active engine of the first shard: it waits until
 * something is due, and appends the fact that says so. Only that fact changes anything.
 *
 * Nothing here has to be kept. What is due follows from the documents and the server's clock. Who
 * looks twice, or at an old document, appends a fact whose place is taken, or of an older step.
 */
import { lookAt } from '../../../projections/schedule/due.ts'
import { evaluationOf, nextEvaluation } from '../../../projections/schedule/sensor.ts'
import type { ScheduleState, SensorState } from '../../../projections/schedule/state.ts'
import { type Key, stateKey } from '../../../projections/state.ts'
import { messageOf } from '../../../streams/errors.ts'
import type { FactDraft } from '../../../streams/facts.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { StoredValue } from '../../../streams/schemas.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Io } from '../../io/manager.ts'
import type { Appender } from '../../log/appender.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import { factEntry } from '../../log/entries.ts'
import type { Logger } from '../../telemetry.ts'
import type { Store } from '../shard/store.ts'
import { storedValue } from './start.ts'

export interface AlarmsContext {
  readonly connection: Connection
  readonly names: Names
  readonly clock: ServerClock
  readonly store: Store
  readonly log: Appender
  readonly io: Io
  readonly logger: Logger
}

/** No longer than this without a look: clocks drift, and are set. */
const LOOK_MS = 60_000
const AGAIN_MS = 1000
/** No state of its own: the namespaces of the keys. */
const KINDS = [stateKey.schedule('', '').split('.')[0] ?? '', stateKey.sensor('', '').split('.')[0] ?? '']

export class Alarms {
  readonly #context: AlarmsContext
  readonly #timers = new Map<string, NodeJS.Timeout>()
  /** Looked at now; true: it has changed meanwhile. */
  readonly #looking = new Map<string, boolean>()
  #stopped = false

  constructor(context: AlarmsContext) {
    this.#context = context
  }

  begin(): void {
    void this.#begin()
  }

  /** A document is another one now. */
  changed(key: string): void {
    if (this.#stopped) return
    if (this.#looking.has(key)) this.#looking.set(key, true)
    else void this.#look(key)
  }

  stop(): void {
    this.#stopped = true
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
  }

  async #begin(): Promise<void> {
    while (!this.#stopped && !this.#context.connection.isClosed) {
      try {
        for (const kind of KINDS) for (const key of await this.#keysOf(kind)) this.changed(key)
        return
      } catch (error) {
        this.#say(`schedules are not known yet: ${messageOf(error)}`)
        await this.#context.connection.ready(AGAIN_MS)
      }
    }
  }

  async #keysOf(kind: string): Promise<string[]> {
    const { connection, names } = this.#context
    const jsm = await jetstreamManager(connection.nc)
    const bucket = names.stateBucket(0)
    const prefix = names.kvSubject(bucket, '')
    const filter = names.kvSubject(bucket, `${kind}.>`)
    const info = await connection.read(() => jsm.streams.info(names.kvStream(bucket), { subjects_filter: filter }))
    return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
  }

  async #look(key: string): Promise<void> {
    clearTimeout(this.#timers.get(key))
    this.#timers.delete(key)
    this.#looking.set(key, false)
    let againMs: number | undefined
    try {
      againMs = await this.#act(key)
    } catch (error) {
      this.#say(`${key} cannot be looked at: ${messageOf(error)}; it is tried again`)
      againMs = AGAIN_MS
    }
    const hasChanged = this.#looking.get(key)
    this.#looking.delete(key)
    if (this.#stopped || this.#context.connection.isClosed) return
    if (hasChanged) {
      void this.#look(key)
      return
    }
    if (againMs === undefined) return
    const timer = setTimeout(() => void this.#look(key), Math.min(Math.max(1, againMs), LOOK_MS))
    this.#timers.set(key, timer)
  }

  /** After how many milliseconds to look again; undefined: when the document has changed. */
  async #act(key: string): Promise<number | undefined> {
    const { store, clock, log, names } = this.#context
    if (!store.has(key)) await store.load([key])
    if (this.#stopped) return undefined
    const state = store.get(key as Key<ScheduleState | SensorState>)
    if (!state) return undefined
    const nowMs = Math.floor(clock.now())
    const { fact, atMs } = 'step' in state ? lookAt(state, nowMs) : await this.#sense(key, state, nowMs)
    if (!fact) return atMs === undefined ? undefined : atMs - nowMs
    // Folding it looks again. It exists when another engine was first, and is folded as well.
    await log.appendOnce(factEntry(names, 0, fact))
    return LOOK_MS
  }

  async #sense(key: string, state: SensorState, nowMs: number): Promise<{ fact?: FactDraft; atMs?: number }> {
    const atMs = nextEvaluation(state)
    if (atMs === undefined) return {}
    if (atMs > nowMs) return { atMs }
    const { value, seq } = state
    const last: StoredValue = value ? await storedValue(this.#context, value) : { json: null }
    // Facts may have changed the document meanwhile. Its next evaluation needs another cursor then.
    if (this.#context.store.get(key as Key<SensorState>)?.seq !== seq) return { atMs: nowMs }
    return { fact: evaluationOf(state, last) }
  }

  #say(message: string): void {
    if (!this.#stopped && !this.#context.connection.isClosed) this.#context.logger.warn(message)
  }
}
