/**
 * How commands connect: by options, else by the environment, else to the `flowstone dev` of this
 * folder.
 */

import { InvalidError } from '../../streams/errors.ts'
import { localBy } from '../client/by.ts'
import { connect } from '../client/connect.ts'
import type { Flow } from '../client/flow.ts'
import type { ConnectOptions } from '../client/options.ts'
import type { Credentials } from '../log/credentials.ts'
import { printingLogger } from '../logs/logger.ts'
import { type Logger, quietLogger } from '../telemetry.ts'
import { DEV_DIR, type DevState, devSecrets, readDevState } from './devfiles.ts'
import { EXIT, type Output, outputOf } from './output.ts'
import { above } from './screen.ts'
import { isSupervised, isToEndNow } from './supervise.ts'

export interface GlobalOptions {
  readonly server?: string
  readonly context?: string
  readonly creds?: string
  readonly nkey?: string
  readonly user?: string
  readonly password?: string
  readonly token?: string
  readonly tlsCa?: string
  readonly tlsCert?: string
  readonly tlsKey?: string
  readonly tlsFirst?: boolean
  readonly jsDomain?: string
  readonly inboxPrefix?: string
  readonly namespace?: string
  readonly json?: boolean
}

/**
 * The address of the server of a `flowstone dev`, for its worker. In the environment, because
 * arguments show in lists of processes.
 */
export const DEV_SERVER = 'FLOWSTONE_DEV_SERVER'
/**
 * The development server is reached by its address, which holds its password, and without what the
 * environment says of TLS and domains: that is of another server.
 */
export const WITHOUT_ENVIRONMENT: ConnectOptions = { domain: '', nats: { tls: null } }

/** The default one, above what a command draws. */
const LOGGER: Logger = printingLogger({
  ...quietLogger,
  warn: (message, fields) => above(() => quietLogger.warn(message, fields)),
  error: (message, fields) => above(() => quietLogger.error(message, fields)),
})

export interface Reach {
  readonly servers: string | undefined
  readonly namespace: string | undefined
  /**
   * Whether that is the server of a `flowstone dev`: credentials in the environment are for another
   * one.
   */
  readonly isDevelopment: boolean
  /** The `flowstone dev` that is meant, unless somebody named a server. */
  readonly dev: DevState | undefined
}

export function reach(options: GlobalOptions): Reach {
  const own = process.env[DEV_SERVER] || undefined
  const named = options.server ?? own ?? (process.env.NATS_URL || undefined)
  const hasContext = options.context !== undefined || Boolean(process.env.NATS_CONTEXT)
  const dev = named === undefined && !hasContext ? readDevState(DEV_DIR) : undefined
  return {
    servers: named ?? dev?.server,
    isDevelopment: dev !== undefined || (own !== undefined && options.server === undefined),
    namespace: options.namespace ?? process.env.FLOWSTONE_NAMESPACE ?? dev?.namespace,
    dev,
  }
}

/** `servesHttp`: it has an address of its own, in place of that of `flowstone dev`. */
export async function open(
  options: GlobalOptions,
  more: ConnectOptions = {},
  { servesHttp = false }: { readonly servesHttp?: boolean } = {},
): Promise<Flow> {
  const { servers, namespace, dev, isDevelopment } = reach(options)
  if (dev) refuseCredentials(options)
  if (dev) process.env.FLOWSTONE_GATE_SECRETS ||= devSecrets(DEV_DIR)
  if (dev && !servesHttp) process.env.FLOWSTONE_BASE_URL ||= dev.http
  return await connect({
    name: 'flowstone cli',
    logger: LOGGER,
    by: localBy('cli'),
    ...(servers === undefined ? {} : { servers: servers.split(',') }),
    ...(isDevelopment ? WITHOUT_ENVIRONMENT : credentialsOf(options)),
    ...(namespace === undefined ? {} : { namespace }),
    ...more,
  })
}

/** Who names credentials means another server than that of `flowstone dev`, which takes none. */
function refuseCredentials(options: GlobalOptions): void {
  const [given] = Object.keys(credentialsOf(options))
  if (given === undefined) return
  const option = { tls: '--tls-…', domain: '--js-domain', inboxPrefix: '--inbox-prefix' }[given] ?? `--${given}`
  throw new InvalidError(
    `${option} is not for the flowstone dev of this folder, which a command goes to by default; name the server, too, with --server`,
  )
}

/** As `connect` takes them. */
export function credentialsOf(options: GlobalOptions): Credentials & { readonly domain?: string } {
  const { context, creds, nkey, user, token, tlsCa, tlsCert, tlsKey, tlsFirst, jsDomain, inboxPrefix } = options
  const password = options.password ?? (user === undefined ? undefined : process.env.NATS_PASSWORD || undefined)
  const tls = picked({ ca: tlsCa, cert: tlsCert, key: tlsKey, first: tlsFirst })
  return picked({
    context,
    domain: jsDomain,
    inboxPrefix,
    creds,
    nkey,
    user,
    password,
    token,
    tls: Object.keys(tls).length > 0 ? tls : undefined,
  })
}

/** What was given of it. */
function picked<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}

/** Runs a command that connects, does one thing, and ends. */
export async function withFlow(
  options: GlobalOptions,
  act: (flow: Flow, output: Output) => Promise<void>,
): Promise<void> {
  await using flow = await open(options)
  await act(flow, outputOf(options.json === true))
}

/**
 * Waits until somebody asks for the end. Throws the reason (exit code 1) when the connection is
 * closed for good before that: whoever started this process starts it again.
 */
export async function untilStopped(flow: Flow, stop: { readonly asked: Promise<string> }): Promise<void> {
  const reason = await Promise.race([stop.asked.then(() => undefined), flow.closed])
  if (reason) throw reason
}

/**
 * Resolves at the first SIGTERM, SIGINT (Ctrl-C), or when whoever started this process is gone. At
 * the second one the process ends at once. Of a supervised process its supervisor says when that
 * is: it passes signals on, and both may have got the same one.
 */
export function stopRequest(): { readonly asked: Promise<string>; [Symbol.dispose](): void } {
  const { promise, resolve } = Promise.withResolvers<string>()
  let count = 0
  const on = (signal: NodeJS.Signals): void => {
    count += 1
    if (count > 1 && !isSupervised) process.exit(EXIT.interrupted)
    resolve(signal)
  }
  const order = (message: unknown): void => {
    if (isToEndNow(message)) process.exit(EXIT.interrupted)
  }
  const gone = (): void => resolve('parent gone')
  process.on('SIGTERM', on).on('SIGINT', on).on('disconnect', gone)
  if (isSupervised) process.on('message', order)
  if (isSupervised && !process.connected) gone()
  return {
    asked: promise,
    [Symbol.dispose]: () =>
      void process.off('SIGTERM', on).off('SIGINT', on).off('disconnect', gone).off('message', order),
  }
}
