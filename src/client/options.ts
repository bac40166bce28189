/** Options of `connect` and `materialize`. */
import type { TopologyOptions } from '../../streams/topology.ts'
import type { Pipeline } from '../define/pipeline.ts'
import type { RunOptions } from '../define/run-options.ts'
import type { GatesOptions } from '../gates/settings.ts'
import type { IoManager } from '../io/manager.ts'
import type { ConnectionSettings } from '../log/connection.ts'
import type { PinoLogger } from '../logs/logger.ts'
import type { OptionNames } from '../options/unknown.ts'
import type { Logger } from '../telemetry.ts'

/**
 * Options of `connect`: which server, as whom, in which namespace, and what the connection works
 * with.
 */
export interface ConnectOptions extends ConnectionSettings, TopologyOptions {
  /** I/O managers by name, besides `nats` (the default one of every asset). */
  readonly io?: Readonly<Record<string, IoManager>>
  /** Secrets of signal gates' tokens, and where they are taken. */
  readonly gates?: GatesOptions
  /**
   * Who this program is, for `flow.audit`: a name without spaces such as `checkout`, or with a
   * kind, `job:nightly`. It stands in the facts that the program causes from outside: requests,
   * cancels, signals. It is what the program says of itself: see docs/audit.md. Default: its NATS
   * user, else its user and host.
   */
  readonly by?: string
  /**
   * What FlowStone itself has to say: pino, or anything that takes a message and fields. Default:
   * warnings and errors to standard error.
   */
  readonly logger?: Logger | PinoLogger
}

/** Options of `flow.materialize`. */
export interface MaterializeOptions<G = Readonly<Record<string, unknown>>> extends RunOptions<G> {
  /**
   * The pipeline, or its name, for an asset that was declared in several. Each of them has values
   * of its own.
   */
  readonly pipeline?: Pipeline | string
}

export const CONNECT_OPTIONS: OptionNames<ConnectOptions> = {
  servers: true,
  user: true,
  password: true,
  token: true,
  creds: true,
  nkey: true,
  tls: true,
  context: true,
  inboxPrefix: true,
  domain: true,
  nats: true,
  name: true,
  namespace: true,
  shards: true,
  replicas: true,
  feedMaxAgeMs: true,
  logsMaxAgeMs: true,
  logsMaxBytes: true,
  io: true,
  gates: true,
  by: true,
  logger: true,
}
export const RUN_OPTIONS: OptionNames<RunOptions> = {
  partition: true,
  input: true,
  tags: true,
  upstream: true,
  key: true,
  timeout: true,
  concurrency: true,
  onFailed: true,
  traceparent: true,
  tracestate: true,
}
export const MATERIALIZE_OPTIONS: OptionNames<MaterializeOptions> = { ...RUN_OPTIONS, pipeline: true }
