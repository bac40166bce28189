/**
 * How many more runs a subscription may start. The state buckets count its open runs. What was
 * taken and is not counted there yet is counted here. It is counted there for certain when the
 * engine has folded what was taken, and then all that was on the logs by that time.
 */
import type { OpenRunsState, SubscriptionState } from '../../../projections/events/state.ts'
import { ENGINE_KEY, stateKey } from '../../../projections/state.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { readDocIfAny } from '../../log/documents.ts'
import { anyBetween, streamBounds } from '../../log/nats.ts'
import { sleep } from '../../options/timer.ts'

interface Uncounted {
  readonly to: number
  readonly count: number
  /** Last sequence of each log when the engine had folded this. */
  logs?: number[]
}

const LOOK_MS = 100
/** While there is some room, the state is looked at no more often. */
const LOOK_SOON_MS = 25

export class OpenRuns {
  readonly #connection: Connection
  readonly #names: Names
  readonly #shards: number
  readonly #pipeline: string
  readonly #subscription: string
  readonly #max: number
  #uncounted: Uncounted[]
  #open = 0
  #lookedMs = Number.NEGATIVE_INFINITY

  /** `to`: up to here another reader has taken messages, nobody knows how many. 0: none. */
  constructor(
    { connection, names, shards }: { readonly connection: Connection; readonly names: Names; readonly shards: number },
    { pipeline, subscription, max }: { readonly pipeline: string; readonly subscription: string; readonly max: number },
    to: number,
  ) {
    this.#connection = connection
    this.#names = names
    this.#shards = shards
    this.#pipeline = pipeline
    this.#subscription = subscription
    this.#max = max
    this.#uncounted = to === 0 ? [] : [{ to, count: max }]
  }

  /** These were taken. */
  took(to: number, count: number): void {
    this.#uncounted.push({ to, count })
  }

  /** Waits until there is room for a run. Says for how many. */
  async room(source: string, signal: AbortSignal): Promise<number> {
    for (;;) {
      signal.throwIfAborted()
      const free = this.#free
      const sinceMs = performance.now() - this.#lookedMs
      if (free < this.#max / 2 && sinceMs >= (free > 0 ? LOOK_SOON_MS : LOOK_MS)) await this.#look(source)
      if (this.#free > 0) return this.#free
      await sleep(LOOK_MS, signal)
    }
  }

  get #free(): number {
    return this.#max - this.#open - this.#uncounted.reduce((sum, { count }) => sum + count, 0)
  }

  async #look(source: string): Promise<void> {
    const state = (await this.#doc(0, stateKey.subscription(this.#pipeline, this.#subscription))) as
      | SubscriptionState
      | undefined
    const folded = this.#uncounted.filter(({ to }) => state?.source === source && to <= state.to)
    if (folded.some(({ logs }) => !logs)) {
      const logs = await this.#each(
        async (shard) => (await this.#connection.read((nc) => streamBounds(nc, this.#names.log(shard)))).last,
      )
      for (const some of folded) some.logs ??= logs
    }
    const positions = await this.#each(async (shard) => positionIn(await this.#doc(shard, ENGINE_KEY)))
    for (const some of folded)
      if (await this.#isCounted(some.logs ?? [], positions)) this.#uncounted.splice(this.#uncounted.indexOf(some), 1)
    const key = stateKey.openRuns(this.#pipeline, this.#subscription)
    const open = await this.#each(async (shard) => ((await this.#doc(shard, key)) as OpenRunsState | undefined)?.open)
    this.#open = open.reduce<number>((sum, count) => sum + (count ?? 0), 0)
    this.#lookedMs = performance.now()
  }

  /** A log may end in sequences that hold nothing: schedules that fired. */
  async #isCounted(logs: readonly number[], positions: readonly number[]): Promise<boolean> {
    for (const [shard, last] of logs.entries()) {
      const position = positions[shard] ?? 0
      if (position >= last) continue
      const log = this.#names.log(shard)
      if (await this.#connection.read((nc) => anyBetween(nc, log, position + 1, last))) return false
    }
    return true
  }

  async #each<T>(ask: (shard: number) => Promise<T>): Promise<T[]> {
    return await Promise.all(Array.from({ length: this.#shards }, (_, shard) => ask(shard)))
  }

  async #doc(shard: number, key: string): Promise<unknown> {
    return await readDocIfAny(this.#connection, this.#names, this.#names.stateBucket(shard), key)
  }
}

function positionIn(doc: unknown): number {
  const seq: unknown = typeof doc === 'object' && doc !== null ? Reflect.get(doc, 'seq') : undefined
  return typeof seq === 'number' ? seq : 0
}
