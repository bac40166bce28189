import type { Names } from '../../streams/subjects.ts'
import type { Io } from '../io/manager.ts'
import type { Appender } from '../log/appender.ts'
import type { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import type { DocSource } from '../log/doc-source.ts'

/** What `flow.gates` needs of the namespace that it reads and writes. */
export interface GateDeps {
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
  readonly logOf: (shard: number) => Appender
  /** Who acts. */
  readonly by: string | undefined
}
