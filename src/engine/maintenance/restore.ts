/**
 * What was decided for a run and is not on its log: found by folding the run's facts once more,
 * beside the state, and carried out. Costs as much as the run has facts, so it is for runs that
 * stand where nothing will move them.
 */
import type { Effect } from '../../../projections/effects.ts'
import { step } from '../../../projections/handlers.ts'
import { groupKey } from '../../../projections/run/concurrency-key.ts'
import { Pending } from '../../../projections/run/pending.ts'
import {
  type ConcurrencyState,
  editDoc,
  type Key,
  type RunState,
  stateKey,
  type View,
} from '../../../projections/state.ts'
import { messageOf } from '../../../streams/errors.ts'
import { factPath } from '../../../streams/facts.ts'
import { leaderGet } from '../../log/nats.ts'
import { runFacts } from '../../log/run-facts.ts'
import type { Logger } from '../../telemetry.ts'
import { carryOut } from '../shard/carry-out.ts'
import type { DispatchContext } from '../shard/dispatch.ts'

/** Returns what it carried out. */
export async function restoreDecisions(context: DispatchContext, run: RunState, logger: Logger): Promise<Effect[]> {
  const { connection, names, shard } = context
  const view = new Beside(context, run)
  const registered = names.fact(
    shard,
    factPath('pipeline.registered', { pipeline: run.pipeline, version: run.version }),
  )
  const known = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj: registered }))
  const pending = new Pending(context.shards)
  for await (const fact of runFacts(context, run.id)) {
    view.knowsPipeline = known !== undefined && known.seq < fact.seq
    try {
      pending.add(fact, step(view, fact))
    } catch (error) {
      // The engine steps over it as well.
      logger.debug(`fact ${fact.seq} cannot be folded: ${messageOf(error)}`)
    }
  }
  const left = pending.left()
  for (const { effect, timeMs } of left) await carryOut(context, effect, timeMs, logger)
  return left.map(({ effect }) => effect)
}

/** Documents of one run, from nothing; of what all runs share, only the run's pipeline. */
class Beside implements View {
  readonly #docs = new Map<string, unknown>()
  readonly #pipelineKey: string
  readonly #context: DispatchContext
  knowsPipeline = false

  constructor(context: DispatchContext, run: RunState) {
    const { pipeline, version, concurrency, skippedFor, status } = run
    this.#context = context
    this.#pipelineKey = stateKey.pipeline(pipeline, version)
    const group = groupKey(pipeline, concurrency)
    if (!group || !concurrency || (skippedFor === undefined && status !== 'queued')) return
    // Others are in its way, as they were.
    const running = Array.from({ length: concurrency.limit }, () => skippedFor ?? 'another')
    this.#docs.set(group, { seq: 0, key: concurrency.key, running, waiting: 0, entered: 0 } satisfies ConcurrencyState)
  }

  get<D>(key: Key<D>): D | undefined {
    if (key === this.#pipelineKey) return this.knowsPipeline ? this.#context.store.get(key) : undefined
    // The key's type says what is behind it. Only `put` writes here.
    return this.#docs.get(key) as D | undefined
  }

  edit<D>(key: Key<D>, create?: () => NoInfer<D>): D {
    return editDoc(this, key, this.get(key), create)
  }

  put<D>(key: Key<D>, doc: D): void {
    this.#docs.set(key, doc)
  }

  delete<D>(key: Key<D>): void {
    this.#docs.delete(key)
  }
}
