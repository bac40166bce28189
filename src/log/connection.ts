/**
 * A connection to NATS that reports at once when an answer will not come because the server went
 * away, and why.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { JetStreamApiError } from '@nats-io/jetstream'
import { errors } from '@nats-io/nats-core'
import {
  type ConnectionOptions,
  connect as connectNats,
  type NatsConnection,
  type NodeConnectionOptions,
} from '@nats-io/transport-node'
import { violationIn } from '../../streams/denied.ts'
import { FlowStoneError, messageOf } from '../../streams/errors.ts'
import { jetstreamManager, useDomain } from '../../streams/jetstream.ts'
import { atMost, sleep, unlessAborted } from '../options/timer.ts'
import { type Logger, quietLogger } from '../telemetry.ts'
import { denyAsked } from './ask.ts'
import { type Credentials, reachOf } from './credentials.ts'
import { limitReached } from './full.ts'
import { ApiError, isPassing } from './nats.ts'
import { holdWrites, socketOf } from './one-write.ts'
import { type Denied, isInbox } from './permissions.ts'
import { deniedError, Reports, reportTo } from './reports.ts'
import { asAway } from './unreachable.ts'

/**
 * Where the server is, and the credentials of the client. Settings that are missing come from the
 * environment, with the names of the NATS command line: NATS_URL, NATS_USER, NATS_PASSWORD,
 * NATS_TOKEN, NATS_CREDS, NATS_NKEY, NATS_CA, NATS_CERT, NATS_KEY, NATS_INBOX_PREFIX, NATS_CONTEXT.
 */
export interface ConnectionSettings extends Credentials {
  /**
   * Address or addresses, such as `nats://host:4222` or `nats://user:password@host`. Default:
   * NATS_URL, else nats://127.0.0.1:4222.
   */
  readonly servers?: string | string[]
  /** Anything else the NATS client takes: user, pass, token, authenticator, tls … */
  readonly nats?: Omit<NodeConnectionOptions & ConnectionOptions, 'servers'>
  readonly name?: string
  /**
   * The JetStream domain that has the namespace, where it is not that of the server: over a leaf
   * node to its hub, say. Default: NATS_JS_DOMAIN, else the context's, else that of the server.
   */
  readonly domain?: string
}

/** How the connection to the server is. */
export interface ConnectionStatus {
  /**
   * `away`: the server cannot be reached, or refuses the credentials; it is tried again. `closed`:
   * for good.
   */
  readonly state: 'connected' | 'away' | 'closed'
  /** Of `away`: since when. */
  readonly since?: Date
  /** Of `away` and `closed`: why, as far as the server said. */
  readonly reason?: string
  /** Permissions that the server denied so far. */
  readonly denied: readonly Denied[]
  /** Streams that take no message at present because their storage is full. */
  readonly full: readonly string[]
  /** Messages of others that could not be read, and were dropped. */
  readonly badMessages: number
}

const READ_GIVE_UP_MS = 60_000
/**
 * A server that does not answer a ping within this time is taken for gone; the client's own pings
 * find out after half a minute.
 */
const SUSPECT_MS = 750
const READY_LOOK_MS = 5000

export class Connection {
  readonly nc: NatsConnection
  /** Whom the server takes this process for, as far as its credentials say. */
  readonly user: string | undefined
  /**
   * Resolves when the connection is closed: with the reason if the client did not ask for it, else
   * with undefined.
   */
  readonly closed: Promise<FlowStoneError | undefined>
  readonly #reports: Reports
  /**
   * Called at a disconnect, one for each answer that is awaited. (A race against one long-lived
   * promise would keep a trace of every answer.)
   */
  readonly #awaited = new Set<() => void>()
  #up = true
  #waiters: (() => void)[] = []
  readonly #onReconnect = new Set<() => void>()
  readonly #onDenied = new Map<string, (error: FlowStoneError) => void>()
  #suspecting: Promise<void> | undefined
  #closing = false

  private constructor(nc: NatsConnection, reports: Reports, user: string | undefined) {
    this.nc = nc
    this.user = user
    this.#reports = reports
    reportTo(nc, reports)
    void this.#follow()
    this.closed = nc.closed().then((error) => {
      const reason = this.#closing ? undefined : messageOf(error ?? 'the client gave up')
      reports.closed(reason)
      for (const lost of this.#awaited) lost()
      for (const wake of this.#waiters.splice(0)) wake()
      return reason === undefined
        ? undefined
        : new FlowStoneError('closed', `the connection to nats-server is closed for good: ${reason}`, { cause: error })
    })
  }

  /**
   * Throws FlowStoneError `unreachable` when no server answers, `unauthorized` when it refuses the
   * credentials, InvalidError for options.
   */
  static async open(settings: ConnectionSettings, logger: Logger = quietLogger): Promise<Connection> {
    // Who gives an authenticator of their own, or names a user there, means that one.
    const { nats = {} } = settings
    const own = nats.user !== undefined || nats.token !== undefined || nats.authenticator !== undefined
    const { NATS_URL, NATS_JS_DOMAIN } = process.env
    const { servers, options, domain, user } = reachOf(settings, own ? { NATS_URL, NATS_JS_DOMAIN } : process.env)
    try {
      const nc = await connectNats({
        timeout: 5000,
        maxReconnectAttempts: -1,
        reconnectTimeWait: 200,
        reconnectJitter: 100,
        pingInterval: 10_000,
        // Two stack traces a request otherwise: a tenth of the time of a short asset.
        noAsyncTraces: true,
        // The client gives up for good after two refusals; credentials may be rotated, or a server
        // restored, while this process waits.
        ignoreAuthErrorAbort: true,
        ...options,
        ...nats,
        servers,
        ...(settings.name === undefined ? {} : { name: settings.name }),
      })
      useDomain(nc, domain)
      const reports = new Reports(logger, {
        where: () => nc.getServer(),
        inboxPrefix: nats.inboxPrefix ?? options.inboxPrefix ?? '_INBOX',
        limitOf: async (stream, why) => await limitReached(await jetstreamManager(nc, { timeout: 1000 }), stream, why),
      })
      return new Connection(nc, reports, own ? nats.user : user)
    } catch (cause) {
      const where = servers.join(', ')
      if (cause instanceof FlowStoneError) throw cause
      if (cause instanceof errors.AuthorizationError)
        throw new FlowStoneError(
          'unauthorized',
          `nats-server at ${where} refuses the credentials (${messageOf(cause)}); set user and password, creds, nkey or context, or NATS_USER, NATS_CREDS …`,
          { cause },
        )
      const advice =
        "start one (docker compose up -d, nats-server -js, or startServer from 'flowstone/server'), or set servers or NATS_URL"
      throw new FlowStoneError('unreachable', `no nats-server at ${where} (${messageOf(cause)}); ${advice}`, { cause })
    }
  }

  get isClosed(): boolean {
    return this.nc.isClosed()
  }

  /** Whether the server is there, as far as is known. */
  get isUp(): boolean {
    return this.#up && !this.isClosed
  }

  get maxPayload(): number {
    return this.nc.info?.max_payload ?? 1_048_576
  }

  /**
   * `most` bytes, or `part` of what a message of this server may hold, if that is less: room is
   * left for what goes with them.
   */
  share(most: number, part = 1 / 4): number {
    return Math.min(most, Math.floor(this.maxPayload * part))
  }

  get status(): ConnectionStatus {
    const { awaySince, reason, denied, full, badMessages } = this.#reports
    const state = this.isClosed ? 'closed' : this.#up ? 'connected' : 'away'
    return {
      state,
      ...(state === 'away' && awaySince ? { since: awaySince } : {}),
      ...(state === 'connected' || reason === undefined ? {} : { reason }),
      denied,
      full,
      badMessages,
    }
  }

  /**
   * An error that names the permission that is missing, where the server denied one and that is
   * why; else the same error.
   */
  async explained(error: unknown): Promise<unknown> {
    // What the server said beside it is known a turn later.
    await nextTurn()
    if (error instanceof FlowStoneError && error.code === 'denied') return error
    const violation = violationIn(error)
    if (violation) return deniedError(this.#reports.denies(violation.operation, violation.subject), error)
    const { denied } = this.#reports
    const unheard = denied.find(isInbox)
    return unheard ? deniedError(unheard, error) : error
  }

  /** As `explained`, for what a piece of work throws. */
  async explaining<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      throw await this.explained(error)
    }
  }

  /**
   * The result of `send`. Undefined if the connection is broken, or breaks before the result came:
   * the request may be lost then, and its answer may never come.
   */
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
   * Sends a request that only reads, and retries it for at most `READ_GIVE_UP_MS`. It retries when
   * the connection broke, nobody answered, or the server cannot answer now (while it starts, or
   * while a stream has no leader). `signal` ends the wait at once.
   */
  async read<T>(ask: (nc: NatsConnection) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const deadline = performance.now() + READ_GIVE_UP_MS
    for (;;) {
      signal?.throwIfAborted()
      try {
        // Wrapped, because undefined is an answer too.
        const answer = await unlessAborted(
          this.untilDisconnect(async (nc) => ({ value: await ask(nc) })),
          signal,
        )
        if (answer) return answer.value
        if (this.isClosed || performance.now() > deadline)
          throw asAway(
            new FlowStoneError('unreachable', 'the connection broke, and the server did not come back in time'),
          )
      } catch (error) {
        signal?.throwIfAborted()
        if (!isPassing(error) || this.isClosed) throw await this.explained(error)
        if (performance.now() > deadline) throw noAnswer(await this.explained(error))
        if (error instanceof errors.TimeoutError) this.suspect()
      }
      await unlessAborted(this.ready(100), signal)
    }
  }

  /**
   * Resolves when connected, after `pauseMs` at the least; at the latest after 5 s, so that callers
   * can look at their deadline.
   */
  async ready(pauseMs: number): Promise<void> {
    await sleep(pauseMs)
    if (this.#up || this.isClosed) return
    await atMost(READY_LOOK_MS, new Promise<void>((resolve) => this.#waiters.push(resolve)))
  }

  /** A message that nobody waits for: dropped when the connection is closed. */
  tell(subject: string, payload: Uint8Array | string, options?: { readonly reply: string }): void {
    try {
      if (this.isClosed) return
      holdWrites(this.nc)
      this.nc.publish(subject, payload, options)
    } catch {
      // It is being closed.
    }
  }

  /**
   * Somebody waited for an answer in vain: the connection may be half open, which TCP notices after
   * many minutes. Pings the server, and connects anew when it does not answer.
   */
  suspect(): void {
    if (!this.#up || this.isClosed) return
    this.#suspecting ??= this.#ping().finally(() => {
      this.#suspecting = undefined
    })
  }

  /** Calls back after every reconnect; returns what ends that. */
  onReconnect(listener: () => void): () => void {
    this.#onReconnect.add(listener)
    return () => this.#onReconnect.delete(listener)
  }

  /**
   * Calls back when the server does not let this client publish to `subject`; returns what ends
   * that. Who asks with `ask` need not: its answer is that error.
   */
  onDenied(subject: string, listener: (error: FlowStoneError) => void): () => void {
    this.#onDenied.set(subject, listener)
    return () => this.#onDenied.delete(subject)
  }

  async close(): Promise<void> {
    this.#closing = true
    if (!this.nc.isClosed()) await this.nc.close()
  }

  async #ping(): Promise<void> {
    const before = bytesOf(this.nc)
    const pong = this.nc.flush().catch(() => undefined)
    const silent = (await atMost(SUSPECT_MS, pong)) === 'late' && bytesOf(this.nc) === before
    if (silent && this.#up && !this.isClosed) await this.nc.reconnect().catch(() => undefined)
  }

  async #follow(): Promise<void> {
    for await (const status of this.nc.status()) {
      if (status.type === 'disconnect') {
        this.#up = false
        this.#reports.away()
        for (const lost of this.#awaited) lost()
      } else if (status.type === 'reconnect') {
        this.#up = true
        this.#reports.back()
        for (const wake of this.#waiters.splice(0)) wake()
        for (const listener of this.#onReconnect) listener()
      } else if (status.type === 'error') this.#heard(status.error)
    }
  }

  #heard(error: unknown): void {
    if (error instanceof errors.PermissionViolationError) {
      const denied = this.#reports.denies(error.operation, error.subject)
      if (denied.operation !== 'publish') return
      const refusal = deniedError(denied, error)
      denyAsked(this.nc, error.subject, refusal)
      this.#onDenied.get(error.subject)?.(refusal)
    } else if (error instanceof errors.AuthorizationError || error instanceof errors.UserAuthenticationExpiredError)
      this.#reports.refused(error)
    else this.#reports.serverError(error)
  }
}

/** For a caller, what passed in no minute is a server that is away, whatever it says. */
function noAnswer(error: unknown): unknown {
  const isOfServer =
    error instanceof errors.TimeoutError ||
    error instanceof errors.NoRespondersError ||
    error instanceof errors.RequestError ||
    error instanceof ApiError ||
    (error instanceof JetStreamApiError && error.status !== 404)
  if (!isOfServer) return error
  const message = `the server gave no answer in ${READ_GIVE_UP_MS / 1000} s: ${messageOf(error)}`
  return asAway(new FlowStoneError('unreachable', message, { cause: error }))
}

/**
 * Bytes that came so far, of messages that are not whole yet too: a slow line is not a dead one.
 */
function bytesOf(nc: NatsConnection): number {
  return socketOf(nc)?.bytesRead ?? nc.stats().inBytes
}
