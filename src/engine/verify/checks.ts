/** All checks, in the order in which they report. A new one is a line here. */
import type { Check, ShardContext, VerifyContext } from './check.ts'
import { FactsCheck } from './facts-check.ts'
import { HistoryCheck } from './history-check.ts'
import { Missing } from './missing.ts'
import { OpenCheck } from './open-check.ts'
import { StateCheck } from './state-check.ts'
import { ValuesCheck } from './values-check.ts'

/** Names of the checks, as `only` takes them. */
export const VERIFY_CHECKS = ['state', 'facts', 'history', 'values', 'open'] as const
/** A check of `flow.verify`. */
export type VerifyCheckName = (typeof VERIFY_CHECKS)[number]

/** The checks of a shard. `state` is among `all`, if it was asked for. */
export interface ShardChecks {
  readonly all: readonly Check[]
  readonly state: StateCheck | undefined
  readonly history: HistoryCheck | undefined
}

/** Of a whole verification: what is compared over all shards. */
export interface Checks {
  of(at: ShardContext): ShardChecks
  /** After all shards. */
  finish(): Promise<void>
}

export function checksOf(context: VerifyContext, wanted: ReadonlySet<VerifyCheckName>): Checks {
  const values = wanted.has('values') ? new ValuesCheck(context) : undefined
  return {
    of: (at) => {
      const missing = new Missing(at)
      const state = wanted.has('state') || wanted.has('facts') ? new StateCheck(at, missing) : undefined
      const history = wanted.has('history') ? new HistoryCheck(at) : undefined
      const all: (Check | undefined)[] = [
        state,
        wanted.has('facts') ? new FactsCheck(at, missing) : undefined,
        history,
        values?.of(at),
        wanted.has('open') ? new OpenCheck(at) : undefined,
      ]
      return { all: all.filter((check) => check !== undefined), state, history }
    },
    finish: async () => await values?.finish(),
  }
}
