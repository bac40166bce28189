/**
 * The raw ceiling of a scatter: the same streams, consumers and messages, at 50 instances a
 * message, in one process. Nothing is in between: no barrier, no state, no checks, no user code.
 * Each message is encoded by its sender and decoded by its receiver, as bare MessagePack: without
 * that it would be no message but a blob, which no program could use.
 *
 *   task messages (50 keys each) → WORK → pulled → outcome messages (50 values each) → LOG → read and counted
 *
 * Both ends append in groups as the engine's appender does: while one atomic batch is in flight,
 * the next gathers.
 */
import { DeliverPolicy, jetstream, jetstreamManager } from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/nats-core'
import type { Connection } from '../src/log/connection.ts'
import { type Entry, publish, publishBatch } from '../src/log/nats.ts'
import { CONTENT_TYPE, decodeMsgpack, encodeMsgpack } from '../streams/codec.ts'
import { ensureTaskConsumer } from '../streams/consumers.ts'
import { newRunId } from '../streams/ids.ts'
import type { Topology } from '../streams/topology.ts'
import { instanceKey, instanceValue } from './payload.ts'

export const RAW_PER_MESSAGE = 50

/** Time from the first publish to the last outcome counted, in milliseconds. */
export async function rawScatter({ nc }: Connection, { names }: Topology, n: number): Promise<number> {
  const messages = Math.ceil(n / RAW_PER_MESSAGE)
  const run = newRunId(Date.now(), '0123456789abcdef', 1)
  const indices = Array.from({ length: RAW_PER_MESSAGE }, (_, i) => i)
  const task = (i: number): Entry => ({
    subject: names.task(0, 'bench', 'default', 1),
    payload: encodeMsgpack({
      v: 1,
      kind: 'lease',
      run,
      from: i * RAW_PER_MESSAGE,
      to: (i + 1) * RAW_PER_MESSAGE,
      keys: indices.map((k) => instanceKey(i * RAW_PER_MESSAGE + k)),
    }),
    contentType: CONTENT_TYPE.msgpack,
    msgId: `${run}.task.${i}`,
  })
  const outcome = (i: number): Entry => ({
    subject: names.fact(0, `scatter.${run}.noop.outcomes`),
    payload: encodeMsgpack({
      v: 1,
      lease: `${i}`,
      ordinal: 1,
      worker: 'raw',
      at: indices.map((k) => i * RAW_PER_MESSAGE + k),
      ms: indices.map(() => 0.01),
      values: indices.map((k) => instanceValue(i * RAW_PER_MESSAGE + k)),
    }),
    contentType: CONTENT_TYPE.msgpack,
    msgId: `${run}.outcome.${i}`,
  })

  const jsm = await jetstreamManager(nc)
  const js = jetstream(nc)
  const durable = await ensureTaskConsumer(
    jsm,
    names,
    { shard: 0, pipeline: 'bench', queue: 'default', priority: 1 },
    { ackWaitMs: 30_000 },
  )
  const work = await js.consumers.get(names.work(0), durable)
  const log = await js.consumers.get(names.log(0), { deliver_policy: DeliverPolicy.All })
  const tasks = new Groups(nc, names.work(0))
  const facts = new Groups(nc, names.log(0))

  const { promise: counted, resolve, reject } = Promise.withResolvers<void>()
  let taken = 0
  let count = 0
  const pulling = await work.consume({
    max_messages: 1000,
    callback: (message) => {
      decodeMsgpack(message.data)
      facts.append(outcome(taken++)).then(() => message.ack(), reject)
    },
  })
  const reading = await log.consume({
    max_messages: 2000,
    callback: (message) => {
      decodeMsgpack(message.data)
      count += 1
      if (count === messages) resolve()
    },
  })
  try {
    const startedMs = performance.now()
    for (let i = 0; i < messages; i++) tasks.append(task(i)).catch(reject)
    await counted
    return performance.now() - startedMs
  } finally {
    await pulling.close()
    await reading.close()
  }
}

/** Group commit and no more: no retries, no expectations. */
class Groups {
  readonly #nc: NatsConnection
  readonly #stream: string
  #queue: { entry: Entry; resolve: () => void; reject: (error: Error) => void }[] = []
  #busy = false
  #batches = 0

  constructor(nc: NatsConnection, stream: string) {
    this.#nc = nc
    this.#stream = stream
  }

  append(entry: Entry): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#queue.push({ entry, resolve, reject })
      if (!this.#busy) void this.#run()
    })
  }

  async #run(): Promise<void> {
    this.#busy = true
    await Promise.resolve()
    while (this.#queue.length > 0) {
      const group = this.#queue.splice(0, 1000)
      try {
        const [only] = group
        const ack =
          group.length === 1 && only
            ? await publish(this.#nc, only.entry, undefined, 30_000)
            : await publishBatch(
                this.#nc,
                group.map(({ entry }) => ({ entry, unit: undefined })),
                `${this.#stream}-${++this.#batches}`,
                30_000,
              )
        if (ack.error) throw new Error(`${this.#stream} refused: ${ack.error.description}`)
        for (const { resolve } of group) resolve()
      } catch (error) {
        for (const { reject } of group) reject(error instanceof Error ? error : new Error(String(error)))
      }
    }
    this.#busy = false
  }
}
