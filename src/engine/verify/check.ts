/**
 * What a check is. Checks share what is dear: the log is read once, and so is each pack of the
 * history. A check says by its methods what it wants to see. To add one, write it and name it in
 * checks.ts.
 */
import type { Fact } from '../../../streams/facts.ts'
import type { HistoryManifest, SealedRun } from '../../../streams/history.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import type { StoredMessage } from '../../log/nats.ts'
import type { Beside } from './beside.ts'
import type { Pace } from './pace.ts'
import type { Findings, VerifyProgress } from './report.ts'
import type { Scratch } from './scratch.ts'

export const NO_STATE = 'it has none yet; start an engine, which folds the log'

/** A message of the log. */
export interface LogMessage {
  readonly message: StoredMessage
  /** Behind `<ns>.log.<shard>.`. */
  readonly path: string
  /** Undefined for what is no fact of ours: engines step over it. */
  readonly fact: Fact | undefined
}

/** All shards. */
export interface VerifyContext {
  readonly connection: Connection
  readonly names: Names
  readonly shards: number
  readonly clock: Pick<ServerClock, 'now'>
  readonly scratch: Scratch
  readonly findings: Findings
  readonly pace: Pace
  readonly progress: (progress: VerifyProgress) => void
  /** What is younger than this may be on its way. */
  readonly graceMs: number
}

export interface ShardContext extends VerifyContext {
  readonly shard: number
  /** The state, folded beside the real one. */
  readonly beside: Beside
  /** The history, as it was when its packs were read. */
  manifest?: HistoryManifest
}

export interface Check {
  /** Each message of the log, in order. */
  message?(message: LogMessage): void | Promise<void>
  /** Each pack of the history, behind the log. */
  pack?(n: number, runs: readonly SealedRun[]): void | Promise<void>
  /** Behind both. Reports what it has found, and looks again before. */
  finish(): Promise<void>
}
