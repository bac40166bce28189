import type { AssetStatus, RunState } from '../../projections/state.ts'
import type { ReuseReason } from '../../streams/run-schemas.ts'
import type { RunConcurrency } from '../../streams/schemas.ts'
import type { Names } from '../../streams/subjects.ts'
import type { ErrorView } from '../../streams/thrown.ts'
import type { Io } from '../io/manager.ts'
import type { Limiter } from '../limiter/limiter.ts'
import type { Appender } from '../log/appender.ts'
import type { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import type { DocSource } from '../log/doc-source.ts'
import type { Logger } from '../telemetry.ts'

/** A run and its assets, as far as the state bucket knows. */
export interface RunView {
  readonly id: string
  readonly pipeline: string
  /** Of the pipeline: a hash of its graph and options. */
  readonly version: string
  readonly target: string
  readonly partition: string | undefined
  readonly tags?: Readonly<Record<string, string>>
  /** The run that this one takes up, or follows under the same key. */
  readonly retryOf?: string
  /** The schedule that started it, and its nominal time. */
  readonly schedule?: { readonly name: string; readonly at: Date; readonly by?: 'trigger' | 'backfill' }
  /** The sensor that started it. */
  readonly sensor?: string
  /** Of a call of a hook: which one, and the run and gate that it is about. */
  readonly hook?: { readonly on: string; readonly run: string; readonly gate?: string | undefined }
  /** How many runs of its key are active at a time. */
  readonly concurrency?: Readonly<RunConcurrency>
  /** The run that started it by `ctx.run`, and the asset that did. */
  readonly parent?: { readonly run: string; readonly asset: string }
  readonly status: RunState['status']
  readonly requestedAt: Date
  readonly finishedAt: Date | undefined
  /** When its time limit ends. */
  readonly deadline?: Date
  /** Since when it is late, where its pipeline says when that is. */
  readonly lateSince?: Date
  readonly assets: Readonly<
    Record<
      string,
      {
        readonly status: AssetStatus
        readonly attempt: number
        readonly error?: ErrorView
        /** Of a suspended asset: the gate it waits at, and until when. */
        readonly gate?: string
        readonly deadline?: Date
        /** Of a suspended asset: the run that it waits for, in place of a gate. */
        readonly waitsForRun?: string
        /**
         * Of a reused value: the run that made it, and why it was taken. `current`: it was made of
         * the same values by the same code. `present`: there was one. `earlier_run`: the run that
         * is tried again had it.
         */
        readonly reused?: { readonly run?: string; readonly why: ReuseReason }
      }
    >
  >
}

export interface RunDeps {
  /** Throws `no_namespace` while there is none, or it was not found yet. */
  readonly shards: number
  /** To be awaited before anything is read or written. */
  readonly found: () => Promise<unknown>
  readonly connection: Connection
  /** What is read comes from here: of now, or of a time in the past. */
  readonly docs: DocSource
  readonly names: Names
  readonly clock: Pick<ServerClock, 'now'>
  readonly io: Io
  readonly limiter: Limiter
  readonly logger: Logger
  readonly logOf: (shard: number) => Appender
  /** Who acts: what stands in the facts that this causes. */
  readonly by: string | undefined
}

/** Whether a run only evaluates code of a schedule or sensor, or calls a hook. */
export function isInternal({ schedule, sensor, hook }: Pick<RunState, 'schedule' | 'sensor' | 'hook'>): boolean {
  return schedule?.evaluates === true || sensor?.evaluates === true || hook !== undefined
}
