/** The measure of latencies: a plain JetStream publish, acknowledged, on a stream like the log. */

import type { Connection } from '../src/log/connection.ts'
import { publish } from '../src/log/nats.ts'
import { encodeJson } from '../streams/codec.ts'
import type { Topology } from '../streams/topology.ts'

/** How long each of `n` publishes took, one after the other, in milliseconds. */
export async function rawPublishes({ nc }: Connection, { names }: Topology, n: number): Promise<number[]> {
  const subject = names.fact(0, 'bench.plain')
  const entry = { subject, payload: encodeJson({ text: 'x'.repeat(280) }), contentType: 'application/json' }
  const times: number[] = []
  for (let i = 0; i < n; i++) {
    const startedMs = performance.now()
    const ack = await publish(nc, entry, undefined, 10_000)
    if (ack.error) throw new Error(`a plain publish was refused: ${ack.error.description}`)
    times.push(performance.now() - startedMs)
  }
  return times
}
