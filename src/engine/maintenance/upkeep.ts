/** What an engine needs around it, made again when it is gone. */
import { ensureMissing, type Topology } from '../../../streams/topology.ts'
import type { Connection } from '../../log/connection.ts'

/**
 * Creates the streams and buckets of a shard that are gone, except its log. Returns the names of
 * those that it created.
 */
export async function ensureBuckets(connection: Connection, topology: Topology, shard: number): Promise<string[]> {
  const made = await connection.untilDisconnect((nc) => ensureMissing(nc, topology, shard))
  return made ?? []
}
