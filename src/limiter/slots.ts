/** The slots of `flow.limiter`. */
import { FlowStoneError, RateLimitedError } from '../../streams/errors.ts'
import { atMost } from '../options/timer.ts'
import { emit } from '../telemetry.ts'
import type { Cells } from './cells.ts'
import type { Slot } from './slot.ts'
import { SlotBucket, type SlotCaller, type SlotWish } from './slot-bucket.ts'
import { settledWithin } from './wait.ts'

export interface SlotRequest extends SlotWish {
  readonly maxWaitMs: number
  readonly signal: AbortSignal | undefined
}

/** Number of buckets whose cell this process remembers. */
const REMEMBERED = 10_000
const CLOSE_MS = 1000

export class Slots {
  readonly #cells: Cells
  readonly #process: string
  readonly #writer: () => string
  readonly #buckets = new Map<string, SlotBucket>()
  #ids = 0

  constructor(cells: Cells, process: string, writer: () => string) {
    this.#cells = cells
    this.#process = process
    this.#writer = writer
  }

  async acquire(request: SlotRequest): Promise<Slot | 'at_capacity'> {
    const startedMs = performance.now()
    const { bucket, signal } = request
    const slots = this.#bucket(bucket)
    let caller: SlotCaller | undefined
    const outcome = await settledWithin<Slot | 'at_capacity'>(
      request.maxWaitMs,
      signal,
      (settle) => {
        const id = `${this.#process}.${(this.#ids++).toString(36)}`
        caller = { wish: request, id, queuedMs: performance.now(), gone: false, settle }
        slots.ask(caller)
      },
      () => {
        if (caller) slots.left(caller)
      },
    )
    if (outcome === 'late') {
      const isAnswered = caller && slots.contactMs >= caller.queuedMs && !this.#cells.isFull
      if (isAnswered) throw timedOut(request)
      throw unreachable(bucket, this.#cells)
    }
    const { value } = outcome
    if (value === 'at_capacity') return value
    const { id, weight, fence } = value
    const durationMs = value.takenMs - startedMs
    emit('flowstone:rate_limit.slot_acquired', { bucket, slot: id, weight, fence, durationMs })
    return value
  }

  /**
   * Releases the slots that this process still holds. While NATS is away it does not wait for that,
   * because the leases expire.
   */
  async close(): Promise<void> {
    const releasing = [...this.#buckets.values()].flatMap(({ held }) => held.map((slot) => slot.release()))
    await atMost(CLOSE_MS, Promise.all(releasing))
    for (const bucket of this.#buckets.values()) bucket.close()
    this.#buckets.clear()
  }

  #bucket(name: string): SlotBucket {
    let found = this.#buckets.get(name)
    if (!found) {
      for (const [other, bucket] of this.#buckets) {
        if (this.#buckets.size < REMEMBERED) break
        if (!bucket.idle) continue
        bucket.close()
        this.#buckets.delete(other)
      }
      found = new SlotBucket(name, this.#cells, this.#process, this.#writer)
      this.#buckets.set(name, found)
    }
    return found
  }
}

function timedOut({ bucket, max, weight, maxWaitMs }: SlotRequest): RateLimitedError {
  return new RateLimitedError(
    `no slot of ${bucket} (${weight} of ${max}) came free within ${Math.round(maxWaitMs)} ms; wait longer (maxWait), or raise max`,
  )
}

function unreachable(bucket: string, cells: Cells): FlowStoneError {
  return new FlowStoneError(
    'unreachable',
    `slots of ${bucket} could not be asked for: ${cells.whySilent}. Nothing was run. Raise maxWait`,
  )
}
