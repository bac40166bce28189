import { jetstreamManager, RetentionPolicy } from '@nats-io/jetstream'
import { headers, type NatsConnection } from '@nats-io/nats-core'
import { connect as connectNats } from '@nats-io/transport-node'

/** Somebody who publishes, and knows nothing of FlowStone. */
export class Publisher implements AsyncDisposable {
  readonly nc: NatsConnection

  constructor(nc: NatsConnection) {
    this.nc = nc
  }

  static async connect(url: string): Promise<Publisher> {
    return new Publisher(await connectNats({ servers: url }))
  }

  async stream(name: string, subjects: string[], retention: RetentionPolicy = RetentionPolicy.Limits): Promise<void> {
    await (await jetstreamManager(this.nc)).streams.add({ name, subjects, retention })
  }

  /** Publishes without waiting. `id`: a Nats-Msg-Id. */
  send(subject: string, body: unknown, id?: string): void {
    const h = headers()
    if (id !== undefined) h.set('Nats-Msg-Id', id)
    this.nc.publish(subject, typeof body === 'string' ? body : JSON.stringify(body), { headers: h })
  }

  async count(stream: string): Promise<number> {
    return (await (await jetstreamManager(this.nc)).streams.info(stream)).state.messages
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.nc.drain()
  }
}
