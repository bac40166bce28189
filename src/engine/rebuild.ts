/** Rebuild: the state buckets are thrown away and folded again from the log. Nothing is decided and nothing is sent: decisions are on the log already. */
import { randomBytes } from 'node:crypto'
import { jetstreamManager } from '@nats-io/jetstream'
import { step } from '../../projections/step.ts'
import { ConflictError, FlowStoneError } from '../../streams/errors.ts'
import { ensureStateBucket, type Topology } from '../../streams/topology.ts'
import type { Connection } from '../log/connection.ts'
import { streamBounds } from '../log/nats.ts'
import { Reader } from '../log/reader.ts'
import { CHECKPOINT_KEYS_MAX, Checkpointer, settledTo } from './checkpoint.ts'
import { Claim } from './claim.ts'
import { Facts } from './facts.ts'
import { Store } from './store.ts'

export interface RebuildReport {
  /** Facts folded, over all partitions. */
  readonly facts: number
  readonly durationMs: number
}

export async function rebuild(connection: Connection, topology: Topology): Promise<RebuildReport> {
  const startedMs = performance.now()
  const jsm = await jetstreamManager(connection.nc)
  // One of its own for each rebuild: a claim under the same name counts as kept.
  const name = `rebuild-${randomBytes(6).toString('hex')}`
  let facts = 0
  for (let p = 0; p < topology.partitions; p++) {
    const claim = new Claim(connection, topology.names, p, name)
    if (!(await claim.tryTake()))
      throw new ConflictError(`an engine is at work on partition ${p}; stop all engines of the namespace, then rebuild`)
    claim.keep()
    try {
      await ensureStateBucket(connection.nc, topology, p)
      const { last } = await streamBounds(connection.nc, topology.names.log(p))
      // What no engine has folded yet is left to one: nobody has carried out what it decides of it. Without a position (a bucket that somebody deleted), all of it.
      const upTo = Math.min(last, (await settledTo(connection, topology.names, p)) ?? last)
      const bucket = topology.names.kvStream(topology.names.stateBucket(p))
      await jsm.streams.delete(bucket).catch(() => false)
      await ensureStateBucket(connection.nc, topology, p)
      facts += await rebuildPartition(connection, topology, p, name, upTo)
    } finally {
      await claim.release()
    }
  }
  return { facts, durationMs: performance.now() - startedMs }
}

async function rebuildPartition(
  connection: Connection,
  topology: Topology,
  p: number,
  name: string,
  last: number,
): Promise<number> {
  const { names } = topology
  const checkpointer = new Checkpointer(connection, names, p, name)
  // Should this die half way, whoever goes on knows that these facts are old.
  const { seq: from } = await checkpointer.takeOver(last)
  if (last <= from) return 0
  const store = new Store(connection, names, p)
  const facts = new Facts(store, names, p)
  const reader = new Reader(connection, names.log(p), from + 1)
  let count = 0
  let folded = from
  try {
    while (folded < last) {
      const messages = await reader.take(1000)
      if (messages.length === 0) throw new FlowStoneError('closed', 'the connection was closed during a rebuild')
      for (const [i, message] of messages.entries()) {
        if (message.seq > last) break
        folded = message.seq
        try {
          const fact = facts.decode(message)
          await facts.load(fact, messages, i + 1)
          step(store, fact)
          count += 1
        } catch (error) {
          // As the engine does: what is no fact of ours is stepped over.
          if (!(error instanceof FlowStoneError) || error.code === 'newer_version') throw error
        }
        if (store.touched >= CHECKPOINT_KEYS_MAX - 100) await checkpointer.write(store.takeTouched(), folded)
      }
    }
    do await checkpointer.write(store.takeTouched(), folded)
    while (store.hasMore)
  } finally {
    reader.stop()
  }
  return count
}
