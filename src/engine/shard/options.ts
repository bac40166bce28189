import type { RetentionSpec } from '../../../streams/retention.ts'
import type { Topology } from '../../../streams/topology.ts'
import type { Io } from '../../io/manager.ts'
import type { Appender } from '../../log/appender.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import type { Logger } from '../../telemetry.ts'
import type { ProofSettings } from '../proof/settings.ts'
import type { ArchivePlace } from '../retention.ts'

export interface EngineShardOptions {
  readonly engine: string
  readonly shard: number
  readonly topology: Topology
  readonly connection: Connection
  readonly clock: ServerClock
  readonly logger: Logger
  readonly logOf: (shard: number) => Appender
  readonly workOf: (shard: number) => Appender
  readonly io: Io
  readonly reconcileMs: number
  readonly proof: ProofSettings
  /** Undefined: runs stay on the log. */
  readonly sealAfterMs: number | undefined
  /** Facts that are sealed between two snapshots. */
  readonly snapshotEvery: number
  /** How long runs of pipelines are kept that do not say it. */
  readonly retention: RetentionSpec
  /** Where runs are archived to before they are pruned. Undefined: nowhere. */
  readonly archive: ArchivePlace | undefined
}
