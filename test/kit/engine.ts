/** What an engine may leave behind, made on purpose. */
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { headers, type MsgHdrs } from '@nats-io/nats-core'
import { connect as connectNats } from '@nats-io/transport-node'
import { step } from '../../projections/handlers.ts'
import { Checkpointer } from '../../src/engine/shard/checkpoint.ts'
import { Facts } from '../../src/engine/shard/facts.ts'
import { Store } from '../../src/engine/shard/store.ts'
import { Connection } from '../../src/log/connection.ts'
import { streamBounds } from '../../src/log/nats.ts'
import { Reader } from '../../src/log/reader.ts'
import { isTimer } from '../../streams/facts.ts'
import { ensureTopology } from '../../streams/topology.ts'

/** Folds all of the log as an engine does, and carries out nothing of what follows. */
export async function foldAndForget(servers: string, namespace: string, shard = 0): Promise<void> {
  const connection = await Connection.open({ servers })
  try {
    const { names } = await ensureTopology(connection.nc, { namespace })
    const checkpointer = new Checkpointer(connection, names, shard, 'forgetful')
    const { seq: from } = await checkpointer.takeOver()
    const { last } = await streamBounds(connection.nc, names.log(shard))
    const store = new Store(connection, names, shard, checkpointer)
    const facts = new Facts(store, names, shard)
    const reader = new Reader(connection, names.log(shard), from + 1)
    let folded = from
    while (folded < last) {
      const messages = await reader.take(1000, last)
      for (const [i, message] of messages.entries()) {
        folded = message.seq
        if (isTimer(names.factPath(message.subject) ?? '')) continue
        const fact = facts.decode(message)
        await facts.load(fact, messages, i + 1)
        step(store, fact)
      }
      if (messages.length === 0) break
    }
    reader.stop()
    await checkpointer.write(store.takeTouched(), last, undefined)
  } finally {
    await connection.close()
  }
}

interface Kept {
  readonly subject: string
  readonly data: Uint8Array
  readonly header: MsgHdrs
}

/**
 * Makes a log anew, with what `keep` leaves of its messages: as when it is restored from a backup.
 */
export async function restoreLog(
  servers: string,
  namespace: string,
  keep: (subjects: readonly string[]) => number,
): Promise<void> {
  const nc = await connectNats({ servers })
  try {
    const jsm = await jetstreamManager(nc)
    const stream = `${namespace}_LOG_0`
    const { state } = await jsm.streams.info(stream)
    const all: Kept[] = []
    for (let seq = state.first_seq; seq <= state.last_seq; seq++) {
      const message = await jsm.streams.getMessage(stream, { seq })
      if (message) all.push({ subject: message.subject, data: message.data, header: message.header })
    }
    await jsm.streams.delete(stream)
    await ensureTopology(nc, { namespace })
    for (const { subject, data, header } of all.slice(0, keep(all.map((one) => one.subject)))) {
      const h = headers()
      for (const name of ['Content-Type', 'Fs-Unit']) if (header.has(name)) h.set(name, header.get(name))
      await jetstream(nc).publish(subject, data, { headers: h })
    }
  } finally {
    await nc.close()
  }
}

/** Deletes streams of a namespace: `_WORK_0`, `KV_…_state_0`. */
export async function deleteStream(servers: string, stream: string): Promise<void> {
  const nc = await connectNats({ servers })
  try {
    await (await jetstreamManager(nc)).streams.delete(stream)
  } finally {
    await nc.close()
  }
}
