/**
 * Positions of schedules, sensors and subscriptions. All of them stand in the first shard. An
 * export reads them before the runs: what happens meanwhile is in the runs, and is seen there.
 */
import type { EventGroupState, SubscriptionState } from '../../../projections/events/state.ts'
import {
  groupPosition,
  type LastEvaluation,
  POSITION_KINDS,
  PositionsSeen,
  positionKind,
  type SubscriptionPosition,
  sensorWithoutPosition,
} from '../../../projections/positions.ts'
import type { ScheduleState, SensorState } from '../../../projections/schedule/state.ts'
import { type Key, type RunState, stateKey } from '../../../projections/state.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { decodeFact, factPath } from '../../../streams/facts.ts'
import type { SealedFact } from '../../../streams/history.ts'
import type { PipelineSpec } from '../../../streams/schemas.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Appender } from '../../log/appender.ts'
import { readDoc } from '../../log/documents.ts'
import { factEntry, timerEntry } from '../../log/entries.ts'
import { leaderGet, streamInfo } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import { untilFolded } from '../shard/until-folded.ts'
import type { PieceSource } from './piece.ts'

export interface Position {
  readonly key: string
  readonly doc: unknown
}

const READ_AT_ONCE = 32
/** A subscription that takes messages meanwhile is read again. */
const TRIES = 50

export async function* readPositions(source: PieceSource): AsyncGenerator<Position> {
  await untilFolded(source, 0)
  for (const kind of POSITION_KINDS) {
    // With its subscription, so that both are of one moment.
    if (kind === 'event_group') continue
    const keys = await keysUnder(source, `${kind}.`)
    for (const key of keys) {
      if (kind === 'subscription') yield* subscriptionPosition(source, key)
      else {
        const doc = await docOf(source, key)
        if (doc !== undefined) yield { key, doc }
      }
    }
  }
}

/** Throws `state_behind` when its groups change each time that they are read. */
async function* subscriptionPosition(source: PieceSource, key: string): AsyncGenerator<Position> {
  const [, pipeline = '', subscription = ''] = key.split('.')
  for (let tries = 0; tries < TRIES; tries++) {
    const state = (await docOf(source, key)) as SubscriptionState | undefined
    if (!state) return
    const groups = await docsUnder(source, stateKey.eventGroup(pipeline, subscription, ''))
    const after = (await docOf(source, key)) as SubscriptionState | undefined
    // Without groups its place is all that there is.
    if (groups.length > 0 && after?.seq !== state.seq) continue
    const taken = await lastTakenFact(source, { pipeline, subscription, source: state.source })
    if (!taken) return
    const doc: SubscriptionPosition = { ...state, stream: taken.stream, version: taken.version }
    yield { key, doc }
    yield* groups
    return
  }
  throw new FlowStoneError(
    'state_behind',
    `export: subscription ${pipeline}/${subscription} takes messages all the time; stop its workers, or leave the positions out (--no-positions, or positions: false)`,
  )
}

async function lastTakenFact(
  { connection, names }: PieceSource,
  ids: { readonly pipeline: string; readonly subscription: string; readonly source: string },
): Promise<{ readonly stream: string; readonly version: string } | undefined> {
  const last_by_subj = names.fact(0, factPath('subscription.taken', { ...ids, from: '*' }))
  const found = await connection.read((nc) => leaderGet(nc, names.log(0), { last_by_subj }))
  const fact = found && factOf(names, 0, found)
  return fact?.name === 'subscription.taken' ? fact.data : undefined
}

async function docsUnder(source: PieceSource, start: string): Promise<Position[]> {
  const keys = await keysUnder(source, start)
  const found: Position[] = []
  for (let i = 0; i < keys.length; i += READ_AT_ONCE) {
    const some = keys.slice(i, i + READ_AT_ONCE)
    const docs = await Promise.all(some.map((key) => docOf(source, key)))
    for (const [k, key] of some.entries()) if (docs[k] !== undefined) found.push({ key, doc: docs[k] })
  }
  return found
}

async function keysUnder({ connection, names }: PieceSource, start: string): Promise<string[]> {
  const bucket = names.stateBucket(0)
  const head = names.kvSubject(bucket, '')
  const info = await connection.read((nc) => streamInfo(nc, names.kvStream(bucket), `${head}${start}>`))
  return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(head.length))
}

async function docOf({ connection, names }: PieceSource, key: string): Promise<unknown> {
  return await readDoc(connection, names, names.stateBucket(0), key)
}

/** What an import finds of positions, and what it makes of them. */
export class Positions {
  readonly #seen = new PositionsSeen()
  readonly #found = new Map<string, { readonly seq: number }>()
  /** By their paths: those of all shards are the same. */
  readonly #pipelines = new Map<string, SealedFact & { readonly shard: number }>()

  /** Of several archives the newest one counts. */
  add(key: string, doc: unknown): void {
    const given = doc as { readonly seq: number }
    const known = this.#found.get(key)
    if (!known || known.seq < given.seq) this.#found.set(key, given)
  }

  sees(run: RunState): void {
    this.#seen.add(run)
  }

  addPipeline(fact: SealedFact & { readonly shard: number }): void {
    this.#pipelines.set(fact.path, fact)
  }

  get count(): number {
    return this.#found.size
  }

  /** The documents as the state has them. */
  put(put: <D>(key: Key<D>, doc: D) => void): void {
    for (const [key, doc] of this.#found) {
      // Its kind says what it is.
      if (positionKind(key) === 'schedule')
        put(key as Key<ScheduleState>, this.#seen.schedule(key, doc as ScheduleState))
      if (positionKind(key) === 'sensor') put(key as Key<SensorState>, this.#seen.sensor(key, doc as SensorState))
      if (positionKind(key) === 'event_group') put(key as Key<EventGroupState>, groupPosition(doc as EventGroupState))
      if (positionKind(key) !== 'subscription') continue
      const { stream: _, version: _version, ...state } = doc as SubscriptionPosition
      put(key as Key<SubscriptionState>, state)
    }
    for (const [key, last] of this.#seen.lastEvaluations) {
      const spec = this.#found.has(key) ? undefined : this.#pipelineOf(last)
      const doc = spec && sensorWithoutPosition(last, spec)
      if (doc) put(key as Key<SensorState>, doc)
    }
  }

  #pipelineOf({ pipeline, version }: LastEvaluation): PipelineSpec | undefined {
    const fact = this.#pipelines.get(factPath('pipeline.registered', { pipeline, version }))
    const decoded = fact && decodeFact(fact)
    return decoded?.name === 'pipeline.registered' ? decoded.data : undefined
  }

  /** Workers find on the log where a subscription stands, and the server holds timers. */
  async append(names: Names, log: Appender): Promise<void> {
    for (const [key, doc] of this.#found) {
      const [, pipeline = '', subscription = '', group = ''] = key.split('.')
      if (positionKind(key) === 'subscription') {
        const { source, to, stream, version } = doc as SubscriptionPosition
        const ids = { pipeline, subscription, source, from: 'new' }
        const data = { version, worker: 'import', stream, to, events: [] }
        await log.append(factEntry(names, 0, { name: 'subscription.taken', ids, data }))
      }
      if (positionKind(key) !== 'event_group') continue
      const fact = { name: 'event.timer_fired', ids: { pipeline, subscription, group }, data: {} } as const
      const { expect: _, ...timer } = timerEntry(names, 0, fact, (doc as EventGroupState).dueMs)
      await log.append(timer)
    }
  }
}
