/** A connection to NATS that tells, at once, when an answer will not come because the server went away. */
import {
  type ConnectionOptions,
  connect as connectNats,
  type NatsConnection,
  type NodeConnectionOptions,
} from '@nats-io/transport-node'
import { FlowStoneError, InvalidError, messageOf } from '../../streams/errors.ts'

export interface ConnectionSettings {
  /** Address or addresses. Default: the environment's NATS_URL, else nats://127.0.0.1:4222. */
  readonly servers?: string | string[]
  /** Anything else the NATS client takes: user, pass, token, authenticator, tls … */
  readonly nats?: Omit<NodeConnectionOptions & ConnectionOptions, 'servers'>
  readonly name?: string
}

const READ_GIVE_UP_MS = 60_000

export class Connection {
  readonly nc: NatsConnection
  /** Called at a disconnect, one for each answer that is awaited. (A race against one long-lived promise would keep a trace of every answer.) */
  readonly #awaited = new Set<() => void>()
  #up = true
  #waiters: (() => void)[] = []
  readonly #onReconnect = new Set<() => void>()

  private constructor(nc: NatsConnection) {
    this.nc = nc
    void this.#follow()
  }

  /** Throws FlowStoneError `unreachable` when no server answers. */
  static async open(settings: ConnectionSettings): Promise<Connection> {
    const servers = settings.servers ?? process.env.NATS_URL ?? 'nats://127.0.0.1:4222'
    if (servers.length === 0) throw new InvalidError('servers: name at least one, such as nats://127.0.0.1:4222')
    try {
      const nc = await connectNats({
        timeout: 5000,
        maxReconnectAttempts: -1,
        reconnectTimeWait: 200,
        reconnectJitter: 100,
        pingInterval: 10_000,
        // Two stack traces a request otherwise: a tenth of the time of a short asset.
        noAsyncTraces: true,
        ...settings.nats,
        servers,
        ...(settings.name === undefined ? {} : { name: settings.name }),
      })
      return new Connection(nc)
    } catch (cause) {
      const where = Array.isArray(servers) ? servers.join(', ') : servers
      const advice =
        "start one (docker compose up -d, nats-server -js, or startServer from 'flowstone/server'), or set servers or NATS_URL"
      throw new FlowStoneError('unreachable', `no nats-server at ${where} (${messageOf(cause)}); ${advice}`, { cause })
    }
  }

  get isClosed(): boolean {
    return this.nc.isClosed()
  }

  get maxPayload(): number {
    return this.nc.info?.max_payload ?? 1_048_576
  }

  /** The result of `send`, or undefined if the connection broke before it came, or is broken: what is sent then gets lost, and its answer would be waited for in vain. */
  async untilDisconnect<T>(send: (nc: NatsConnection) => Promise<T>): Promise<T | undefined> {
    if (!this.#up && !this.isClosed) return undefined
    return await new Promise<T | undefined>((resolve, reject) => {
      const lost = (): void => resolve(undefined)
      this.#awaited.add(lost)
      send(this.nc)
        .then(resolve, reject)
        .finally(() => this.#awaited.delete(lost))
    })
  }

  /**
   * For what only reads: the answer, asked for again when the connection broke or nobody answered, as while a server starts again; for `READ_GIVE_UP_MS` at the most.
   */
  async read<T>(ask: (nc: NatsConnection) => Promise<T>): Promise<T> {
    const deadline = performance.now() + READ_GIVE_UP_MS
    for (;;) {
      try {
        // Wrapped, because undefined is an answer too.
        const answer = await this.untilDisconnect(async (nc) => ({ value: await ask(nc) }))
        if (answer) return answer.value
        if (this.isClosed || performance.now() > deadline)
          throw new FlowStoneError('unreachable', 'the connection broke, and the server did not come back in time')
      } catch (error) {
        if (error instanceof FlowStoneError || this.isClosed || performance.now() > deadline) throw error
      }
      await this.ready(100)
    }
  }

  /** Resolves when connected, after `pauseMs` at the least; at the latest after 5 s, so that callers can look at their deadline. */
  async ready(pauseMs: number): Promise<void> {
    await pause(pauseMs)
    if (this.#up || this.isClosed) return
    await Promise.race([new Promise<void>((resolve) => this.#waiters.push(resolve)), pause(5000)])
  }

  /** Calls back after every reconnect; returns what ends that. */
  onReconnect(listener: () => void): () => void {
    this.#onReconnect.add(listener)
    return () => this.#onReconnect.delete(listener)
  }

  async close(): Promise<void> {
    if (!this.nc.isClosed()) await this.nc.close()
  }

  async #follow(): Promise<void> {
    for await (const status of this.nc.status()) {
      if (status.type === 'disconnect') {
        this.#up = false
        for (const lost of this.#awaited) lost()
      } else if (status.type === 'reconnect') {
        this.#up = true
        for (const wake of this.#waiters.splice(0)) wake()
        for (const listener of this.#onReconnect) listener()
      }
    }
    for (const lost of this.#awaited) lost()
    for (const wake of this.#waiters.splice(0)) wake()
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
