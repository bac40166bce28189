/** What a worker is made of. */
import type { Topology } from '../../streams/topology.ts'
import type { Pipeline } from '../define/pipeline.ts'
import type { Refusals } from '../gates/refused.ts'
import type { GateSettings } from '../gates/settings.ts'
import type { Io } from '../io/manager.ts'
import type { Limiter } from '../limiter/limiter.ts'
import type { Appender } from '../log/appender.ts'
import type { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import type { Logger } from '../telemetry.ts'

export interface WorkerParts {
  readonly connection: Connection
  readonly topology: Topology
  readonly clock: ServerClock
  readonly gates: GateSettings
  readonly refusals: Pick<Refusals, 'add'>
  readonly io: Io
  readonly limiter: Limiter
  readonly logger: Logger
  readonly by: string | undefined
  readonly logOf: (shard: number) => Appender
  readonly workOf: (shard: number) => Appender
  readonly random: string
  readonly register: (pipeline: Pipeline) => Promise<void>
}
