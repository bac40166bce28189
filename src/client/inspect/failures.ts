/** Failed instances of a scatter, of an open one too: one by one, and by error. */
import { segmentOf } from '../../../projections/scatter/bits.ts'
import { FAILURES_PER_CHUNK, lostError } from '../../../projections/scatter/instances.ts'
import { failedIn } from '../../../projections/scatter/map.ts'
import type { BarrierState, FailureChunk } from '../../../projections/scatter/state.ts'
import { stateKey } from '../../../projections/state.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import type { Fact } from '../../../streams/facts.ts'
import { parseBarrierId } from '../../../streams/ids.ts'
import { type ErrorView, viewOfError } from '../../../streams/thrown.ts'
import { sealedAt } from '../../log/history.ts'
import { directGet } from '../../log/nats.ts'
import { factIfAny } from '../../log/read-fact.ts'
import { Values } from '../../worker/attempt/values.ts'
import type { RunDeps } from '../run-view.ts'
import { inTurns } from './in-turns.ts'
import { barrierOf } from './scatter-map.ts'

/** Instances that failed by the same error. */
export interface ErrorGroup {
  readonly code: string
  /** Of the first of them. */
  readonly message: string
  readonly count: number
  /** The first of them. */
  readonly instances: readonly number[]
  /** How many there are in each hundredth of the keys. */
  readonly spread: readonly number[]
}

/** Failed instances by error, most first. */
export interface ErrorGroups {
  readonly errors: readonly ErrorGroup[]
  /** False: not all failures were read within the time. Ask again: what was read is kept. */
  readonly complete: boolean
}

/** What an instance failed by, for good. */
export interface InstanceFailure {
  readonly index: number
  readonly error: ErrorView
  readonly attempts: number
}

/** What `flow.inspect.errors` is to say. */
export interface ErrorsOptions {
  /** Indexes of failed instances to list for each error. Default 20. */
  readonly instances?: number
  /** Reads failures for so long. Default: until all are read. */
  readonly withinMs?: number
}

const SPREAD = 100
const SHOWN = 20
/** Failures whose facts are read at a time. */
const AT_ONCE = 64
/** Failures that are looked at for groups. */
const GROUPED_MAX = 100_000
/** Of so many scatters it is kept by what their instances failed. */
const KEPT_SCATTERS = 4
/** Kinds of errors that a scatter is shown with. */
const KINDS_MAX = 1000
const OTHERS = 'errors of more than a thousand kinds'

/** Messages that differ in ids and numbers only are one error. */
interface Kind {
  readonly code: string
  message: string
  /** The instance that the message is of. */
  first: number
}

/** By what each instance failed never changes, so it is read once. */
class KnownFailures {
  readonly #kinds = new Map<string, Kind>()
  readonly #ofInstance = new Map<number, Kind>()
  #others: Kind | undefined
  #turn: Promise<unknown> = Promise.resolve()

  kindOf(index: number): Kind | undefined {
    return this.#ofInstance.get(index)
  }

  add({ index, error: { code, message } }: InstanceFailure): void {
    const key = `${code} ${withoutNumbers(message)}`
    const isFull = this.#kinds.size >= KINDS_MAX
    if (isFull) this.#others ??= { code, message: OTHERS, first: -1 }
    const kind = this.#kinds.get(key) ?? this.#others ?? { code, message, first: index }
    if (kind !== this.#others) this.#kinds.set(key, kind)
    if (index < kind.first) {
      kind.first = index
      kind.message = message
    }
    this.#ofInstance.set(index, kind)
  }

  /** One reads at a time: the others find what it has read. */
  async inTurn<T>(read: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(read, read)
    this.#turn = turn.catch(() => undefined)
    return await turn
  }
}

/** What was read of the scatters that somebody looked at last. */
export class FailuresRead {
  readonly #known = new Map<string, KnownFailures>()

  of(id: string): KnownFailures {
    const known = this.#known.get(id) ?? new KnownFailures()
    this.#known.delete(id)
    this.#known.set(id, known)
    const [oldest] = this.#known.keys()
    if (this.#known.size > KEPT_SCATTERS && oldest !== undefined) this.#known.delete(oldest)
    return known
  }
}

/** Of the first 100,000 failures. */
export async function errorGroups(
  deps: RunDeps,
  read: FailuresRead,
  id: string,
  { instances: shown = SHOWN, withinMs = Number.POSITIVE_INFINITY }: ErrorsOptions = {},
): Promise<ErrorGroups> {
  const endMs = performance.now() + withinMs
  const barrier = await barrierOf(deps, id)
  const known = read.of(id)
  const indexes: number[] = []
  for await (const failed of failedFrom(deps, id, barrier, 0)) {
    for (const index of failed) if (indexes.length < GROUPED_MAX) indexes.push(index)
    if (indexes.length >= GROUPED_MAX) break
  }
  const complete = await known.inTurn(async () => {
    const unknown = indexes.filter((index) => !known.kindOf(index))
    let left = unknown.length
    for await (const failures of failuresOf(deps, id, unknown)) {
      for (const failure of failures) known.add(failure)
      left -= failures.length
      if (left > 0 && performance.now() >= endMs) return false
    }
    return true
  })
  const groups = new Map<Kind, { count: number; instances: number[]; spread: number[] }>()
  for (const index of indexes) {
    const kind = known.kindOf(index)
    if (!kind) continue
    const group = groups.get(kind) ?? { count: 0, instances: [], spread: new Array<number>(SPREAD).fill(0) }
    groups.set(kind, group)
    group.count += 1
    if (group.instances.length < shown) group.instances.push(index)
    const at = Math.min(SPREAD - 1, Math.floor((index / Math.max(1, barrier.stored)) * SPREAD))
    group.spread[at] = (group.spread[at] ?? 0) + 1
  }
  const errors = [...groups].map(([{ code, message }, group]) => ({ code, message, ...group }))
  return { errors: errors.toSorted((a, b) => b.count - a.count), complete }
}

function withoutNumbers(message: string): string {
  return message.replaceAll(/[0-9a-f]{8,}|\d+/gi, '#')
}

/** Failed instances in order, of open scatters too, from an index on, with keys. */
export async function scatterFailures(
  deps: RunDeps,
  id: string,
  { from, limit }: { readonly from: number; readonly limit: number },
): Promise<(InstanceFailure & { readonly key: unknown })[]> {
  const barrier = await barrierOf(deps, id)
  const indexes: number[] = []
  for await (const failed of failedFrom(deps, id, barrier, from)) {
    indexes.push(...failed.slice(0, limit - indexes.length))
    if (indexes.length >= limit) break
  }
  const found: InstanceFailure[] = []
  for await (const failures of failuresOf(deps, id, indexes)) found.push(...failures)
  const keys = await keysOf(
    deps,
    id,
    barrier,
    found.map(({ index }) => index),
  )
  return found.map((failure, i) => ({ ...failure, key: keys[i] }))
}

/** The keys of some instances, which are in order. */
export async function keysOf(
  deps: RunDeps,
  id: string,
  { stored }: BarrierState,
  indexes: readonly number[],
): Promise<unknown[]> {
  const { shard, run, asset } = parseBarrierId(id)
  const values = new Values(deps.connection, deps.names, deps.io)
  const keys: unknown[] = []
  if (indexes.length === 0 || stored === 0) return keys
  let chunk = await values.keyChunk(shard, run, asset, 0)
  for (const index of indexes) {
    // Only where one ends is known where the next begins.
    while (index >= chunk.end) chunk = await values.keyChunk(shard, run, asset, chunk.end)
    keys.push(chunk.key(index))
  }
  return keys
}

/** Indexes of failed instances, in order: a segment at a time. */
async function* failedFrom(deps: RunDeps, id: string, barrier: BarrierState, from: number): AsyncGenerator<number[]> {
  if (barrier.failed === 0) return
  const { run, asset } = parseBarrierId(id)
  for (let n = segmentOf(from); n <= segmentOf(Math.max(0, barrier.stored - 1)); n++) {
    const segment = await deps.docs.ofRun(run, stateKey.segment(run, asset, n))
    if (segment instanceof Uint8Array) yield failedIn(segment, n).filter((index) => index >= from)
  }
}

/** Where the error of an instance is: its index, a sequence, and an attempt that was lost. */
type Reason = FailureChunk['at'][number]

/** Some at a time. Instances without a reason yet are left out. */
async function* failuresOf(deps: RunDeps, id: string, indexes: readonly number[]): AsyncGenerator<InstanceFailure[]> {
  const { run, asset } = parseBarrierId(id)
  const wanted = new Set(indexes)
  const chunks = [...new Set(indexes.map((index) => Math.floor(index / FAILURES_PER_CHUNK)))]
  let some: Reason[] = []
  for (let i = 0; i < chunks.length; i += AT_ONCE) {
    const docs = await inTurns(chunks.slice(i, i + AT_ONCE), async (n) => {
      // The bucket's type of document follows from its key.
      return (await deps.docs.ofRun(run, stateKey.failures(run, asset, n))) as FailureChunk | undefined
    })
    for (const doc of docs)
      for (const reason of (doc?.at ?? []).toSorted(([a], [b]) => a - b)) {
        if (wanted.has(reason[0])) some.push(reason)
        if (some.length < AT_ONCE) continue
        yield await read(deps, id, some)
        some = []
      }
  }
  yield await read(deps, id, some)
}

/** Each fact is read once. After retries they lie anywhere on the log. */
async function read(deps: RunDeps, id: string, reasons: readonly Reason[]): Promise<InstanceFailure[]> {
  const { shard } = parseBarrierId(id)
  const { connection, names } = deps
  const seqs = [...new Set(reasons.flatMap(([, seq, lost]) => (lost === undefined ? [seq] : [])))]
  const facts = new Map(
    await inTurns(seqs, async (seq): Promise<[number, Fact | undefined]> => {
      const message = await connection.read((nc) => directGet(nc, names.log(shard), { seq }))
      return [seq, message && factIfAny(names, shard, message)]
    }),
  )
  const failures: InstanceFailure[] = []
  for (const [index, seq, lost] of reasons) {
    if (lost !== undefined) {
      failures.push({ index, error: lostError(index, lost), attempts: lost })
      continue
    }
    // One that is sealed is in a pack, with others.
    const fact = facts.get(seq) ?? (await sealedAt(deps, shard, seq))
    facts.set(seq, fact)
    const outcomes = fact?.name === 'scatter.outcomes' ? fact.data : undefined
    const found = outcomes?.errors?.find(([k]) => outcomes.at[k] === index)
    if (!outcomes || !found)
      throw new FlowStoneError('missing_result', `message ${seq} of the log holds no error of instance ${index}`)
    failures.push({ index, error: viewOfError(found[1].error), attempts: outcomes.ordinal })
  }
  return failures
}
