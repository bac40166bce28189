/**
 * Outcomes of instances, in groups: sent when they are many or old, and at the end of the lease.
 */
import { squeeze } from '../../../streams/compress.ts'
import type { AssetName, RunId } from '../../../streams/ids.ts'
import { ListWriter } from '../../../streams/list.ts'
import type { ScatterOutcomes } from '../../../streams/scatter-schemas.ts'
import type { Connection } from '../../log/connection.ts'
import { factEntry } from '../../log/entries.ts'
import type { Entry } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import { isRefused } from '../attempt/refused.ts'
import type { Failure } from '../attempt/run-code.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import { type ComeAgain, noRoomText } from '../pull/disposition.ts'
import { partsOf } from './refused-outcomes.ts'

const REPORT_MS = 50
/** Leases of a limited queue are many, and each reports for itself. */
const LIMITED_REPORT_MS = 150
/** Both are less where the server's messages are small. */
const REPORT_BYTES = 256 * 1024
export const INLINE_MAX_BYTES = 16 * 1024

/** Values up to this many bytes ride in the outcomes; larger ones go to the object store. */
export function inlineMax(connection: Connection): number {
  return connection.share(INLINE_MAX_BYTES, 1 / 8)
}

interface Columns {
  at: number[]
  ms: number[]
  refs: NonNullable<ScatterOutcomes['refs']>
  errors: NonNullable<ScatterOutcomes['errors']>
  suspended: NonNullable<ScatterOutcomes['suspended']>
  left: NonNullable<ScatterOutcomes['left']>
}

/** Whose instances are reported: a lease's, or the one that continues after a gate. */
export type ReportOf = Pick<ScatterOutcomes, 'lease' | 'ordinal' | 'resumes'>

export class Report {
  readonly #shared: WorkerShared
  readonly #at: { readonly shard: number; readonly run: RunId; readonly asset: AssetName }
  readonly #of: ReportOf
  readonly #everyMs: number
  readonly #maxBytes: number
  #columns = emptyColumns()
  /** Of each instance in `at`; and of the one that ended just now, before it is put there. */
  readonly #values = new ListWriter()
  #bytes = 0
  #instancesMs = 0
  #sinceMs = performance.now()
  #sending: Promise<unknown>[] = []
  #failed: unknown

  constructor(
    shared: WorkerShared,
    at: { readonly shard: number; readonly run: RunId; readonly asset: AssetName },
    of: ReportOf & { readonly serial?: boolean | undefined },
  ) {
    this.#everyMs = of.serial ? LIMITED_REPORT_MS : REPORT_MS
    this.#maxBytes = shared.connection.share(REPORT_BYTES)
    this.#shared = shared
    this.#at = at
    this.#of = of
  }

  /**
   * Said before the outcome of the instance that opened these gates and does not wait at them: the
   * engine ends them, if that outcome counts.
   */
  leaves(gates: readonly string[]): void {
    if (gates.length === 0) return
    this.#columns.left.push([this.#columns.at.length, [...gates]])
    for (const gate of gates) this.#bytes += gate.length
  }

  /** It waits at this gate. */
  suspended(index: number, ms: number, gate: string): void {
    this.#columns.suspended.push([this.#columns.at.length, gate])
    this.#values.add(null)
    this.#add(index, ms)
    this.#grow(60)
  }

  /**
   * Takes the value of an instance as it is now; `value`, or `undo`, comes next. Returns how many
   * bytes it takes. Throws InvalidError for what cannot be stored.
   */
  write(value: unknown): number {
    return this.#values.add(value)
  }

  /** The value that was taken last is not reported as such. */
  undo(): void {
    this.#values.undo()
  }

  /** The instance whose value was taken last. */
  value(index: number, ms: number, bytes: number): void {
    this.#add(index, ms)
    this.#grow(bytes)
  }

  /** A value of so many bytes that was stored by itself, or in `stored`. */
  ref(index: number, ms: number, stored: NonNullable<ScatterOutcomes['refs']>[number][1], bytes: number): void {
    this.#columns.refs.push([this.#columns.at.length, stored])
    this.#values.add(null)
    this.#add(index, ms)
    this.#grow('manager' in stored ? 200 : bytes * 1.4)
  }

  failure(index: number, ms: number, failure: Failure): void {
    const { outcome, error, retryAfterMs } = failure
    this.#columns.errors.push([
      this.#columns.at.length,
      { outcome, error, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) },
    ])
    this.#values.add(null)
    this.#add(index, ms)
    this.#grow(300 + JSON.stringify(error).length)
  }

  /** Not begun: its turn is not near. */
  comeAgain(index: number, later: ComeAgain): void {
    const error = { code: 'limited', message: noRoomText(later) }
    this.failure(index, 0, { outcome: 'returned', error, retryAfterMs: Math.ceil(later.delayMs), thrown: undefined })
  }

  /**
   * Many may end in the same moment: what is full goes at once, or it would grow over what a
   * message may hold.
   */
  #grow(bytes: number): void {
    this.#bytes += bytes
    if (this.#bytes >= this.#maxBytes) this.#send(undefined)
  }

  /** How long all that was reported took, added up. */
  get instancesMs(): number {
    return this.#instancesMs
  }

  isDue(nowMs: number): boolean {
    return this.#columns.at.length > 0 && (this.#bytes >= this.#maxBytes || nowMs - this.#sinceMs >= this.#everyMs)
  }

  /** Sends what there is when it is old or large enough; waits only when much is under way. */
  async flushIfDue(nowMs: number): Promise<void> {
    if (!this.isDue(nowMs)) return
    this.#send(undefined)
    if (this.#sending.length > 8) await Promise.allSettled(this.#sending)
  }

  /**
   * Sends the rest, and waits until all of it is stored. Throws if any of it could not be: the
   * lease is then retried.
   */
  async end(heldMs: number | undefined): Promise<void> {
    if (heldMs !== undefined || this.#columns.at.length > 0) this.#send(heldMs)
    this.#values.end()
    await Promise.allSettled(this.#sending)
    if (this.#failed !== undefined) throw this.#failed
  }

  #send(heldMs: number | undefined): void {
    const { at, ms, refs, errors, suspended, left } = this.#columns
    const { lease, ordinal, resumes } = this.#of
    // Where they are not compressed, these are a view of the writer's buffer: the fact is encoded
    // before the next value comes.
    const { bytes, encoding } = squeeze(this.#values.list(), at.length)
    const data: ScatterOutcomes = {
      lease,
      ordinal,
      worker: this.#shared.id,
      at,
      ms,
      values: bytes,
      ...(encoding ? { encoding } : {}),
      ...(refs.length > 0 ? { refs } : {}),
      ...(errors.length > 0 ? { errors } : {}),
      ...(suspended.length > 0 ? { suspended } : {}),
      ...(left.length > 0 ? { left } : {}),
      ...(resumes === undefined ? {} : { resumes }),
      ...(heldMs === undefined ? {} : { heldMs: Math.round(heldMs * 100) / 100 }),
    }
    this.#columns = emptyColumns()
    this.#bytes = 0
    this.#sinceMs = performance.now()
    const entry = this.#entryOf(data)
    this.#values.drop(at.length)
    const sending = this.#store(entry)
      .catch((error: unknown) => {
        this.#failed = error
      })
      .finally(() => {
        this.#sending = this.#sending.filter((other) => other !== sending)
      })
    this.#sending.push(sending)
  }

  #entryOf(data: ScatterOutcomes): Entry {
    const { shard, run, asset } = this.#at
    return factEntry(this.#shared.names, shard, { name: 'scatter.outcomes', ids: { run, asset }, data })
  }

  async #store(entry: Entry): Promise<void> {
    const { names, logOf } = this.#shared
    const { shard } = this.#at
    try {
      await logOf(shard).append(entry)
    } catch (error) {
      if (!isRefused(error)) throw error
      const headers = new Map(entry.contentType === undefined ? [] : [['Content-Type', entry.contentType]])
      const fact = factOf(names, shard, { ...entry, headers, seq: 0, timeMs: 0 })
      if (fact.name !== 'scatter.outcomes') throw error
      for (const part of partsOf(fact.data, error)) await this.#store(this.#entryOf(part))
    }
  }

  #add(index: number, ms: number): void {
    if (this.#columns.at.length === 0) this.#sinceMs = performance.now()
    this.#instancesMs += ms
    this.#columns.at.push(index)
    this.#columns.ms.push(Math.round(ms * 100) / 100)
  }
}

function emptyColumns(): Columns {
  return { at: [], ms: [], refs: [], errors: [], suspended: [], left: [] }
}
