import type { ArchiveFoot, ArchiveHead, ArchiveRecord } from '../../../streams/archive.ts'
import type { Topology } from '../../../streams/namespace.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Appender } from '../../log/appender.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'

export interface ImportDeps {
  readonly connection: Connection
  readonly names: Names
  readonly clock: Pick<ServerClock, 'now' | 'ready'>
  readonly logOf: (shard: number) => Appender
  /** Makes the namespace, or what is missing of it. */
  readonly make: (options: { readonly shards: number; readonly replicas?: number }) => Promise<Topology>
}

export interface FillDeps extends ImportDeps {
  readonly topology: Topology
  readonly skipOpen: boolean
  readonly positions: boolean
}

/** One archive, which was found whole. */
export interface Verified {
  readonly head: ArchiveHead
  readonly foot: ArchiveFoot
  readonly records: () => AsyncIterable<ArchiveRecord>
}
