import type { LeftRecord } from '../../../streams/proof.ts'
import type { RetentionSpec } from '../../../streams/retention.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import type { Logger } from '../../telemetry.ts'
import type { ArchivePlace } from '../retention.ts'
import type { Store } from '../shard/store.ts'
import type { Changed } from './changed.ts'
import type { Stored } from './stored.ts'

export interface SealerOptions {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
  readonly shards: number
  readonly engine: string
  readonly clock: ServerClock
  readonly logger: Logger
  /** Runs that ended so long ago are sealed. */
  readonly afterMs: number
  /** Facts that are sealed between two snapshots. */
  readonly snapshotEvery: number
  /** How long runs of pipelines are kept that do not say it. */
  readonly retention: RetentionSpec
  /** Where runs are archived to before they are pruned. */
  readonly archive?: ArchivePlace | undefined
  /** The state of the term, and how far it is stored. */
  readonly state: Store
  readonly stored: Stored
  /** What of the state changes. */
  readonly changed: Changed
  /** All that outsiders see of the log up to here is on the feed. */
  readonly shownTo: () => number
  /** All facts of the log up to here are in the proof, if there is one. */
  readonly provenTo: () => number
  /** Has the proof say that facts leave the log by rule. They may be taken away after that. */
  readonly leaving: (records: readonly LeftRecord[]) => Promise<void>
  /** Whether the engine leaves the shard. */
  readonly isStopped: () => boolean
  /** Documents of the state were deleted: a checkpoint is due. */
  readonly touched: () => void
}
