import type { Topology } from '../../../streams/topology.ts'
import type { Io } from '../../io/manager.ts'
import type { Appender } from '../../log/appender.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import type { Logger } from '../../telemetry.ts'

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
}
