/** Streams one by one into memory and back, by the calls that `nats stream backup` makes. */
import type { NatsConnection } from '@nats-io/transport-node'

const ANSWER_MS = 20_000

interface Backup {
  readonly stream: string
  readonly config: unknown
  readonly state: unknown
  readonly chunks: readonly Uint8Array[]
}

export async function backUp(nc: NatsConnection, streams: readonly string[]): Promise<Backup[]> {
  const backups: Backup[] = []
  for (const stream of streams) {
    const inbox = `_backup.${stream}`
    const chunks: Uint8Array[] = []
    const messages = nc.subscribe(inbox)
    const { config, state } = await ask(nc, `SNAPSHOT.${stream}`, { deliver_subject: inbox, no_consumers: true })
    for await (const message of messages) {
      if (message.data.length === 0) break
      chunks.push(message.data.slice())
      message.respond()
    }
    backups.push({ stream, config, state, chunks })
  }
  return backups
}

/** They must not be there any more. */
export async function restore(nc: NatsConnection, backups: readonly Backup[]): Promise<void> {
  for (const { stream, config, state, chunks } of backups) {
    const { deliver_subject: to } = await ask(nc, `RESTORE.${stream}`, { config, state })
    for (const chunk of chunks) await nc.request(String(to), chunk, { timeout: ANSWER_MS })
    checked((await nc.request(String(to), '', { timeout: ANSWER_MS })).json())
  }
}

async function ask(nc: NatsConnection, call: string, body: unknown): Promise<Record<string, unknown>> {
  const answer = await nc.request(`$JS.API.STREAM.${call}`, JSON.stringify(body), { timeout: ANSWER_MS })
  return checked(answer.json())
}

function checked(answer: Record<string, unknown>): Record<string, unknown> {
  if (answer.error) throw new Error(JSON.stringify(answer.error))
  return answer
}
