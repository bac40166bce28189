/** How commands connect: by options, else by the environment, else to the `flowstone dev` of this folder. */
import { type ConnectOptions, connect, type Flow } from '../client/flow.ts'
import { DEV_DIR, type DevState, devSecrets, readDevState } from './devfiles.ts'
import { type Output, outputOf } from './output.ts'

export interface GlobalOptions {
  readonly server?: string
  readonly namespace?: string
  readonly json?: boolean
}

export interface Reach {
  readonly servers: string | undefined
  readonly namespace: string | undefined
  /** The `flowstone dev` that is meant, unless somebody named a server. */
  readonly dev: DevState | undefined
}

export function reach(options: GlobalOptions): Reach {
  const named = options.server ?? process.env.NATS_URL
  const dev = named === undefined ? readDevState(DEV_DIR) : undefined
  return {
    servers: named ?? dev?.server,
    namespace: options.namespace ?? process.env.FLOWSTONE_NAMESPACE ?? dev?.namespace,
    dev,
  }
}

export async function open(options: GlobalOptions, more: ConnectOptions = {}): Promise<Flow> {
  const { servers, namespace, dev } = reach(options)
  if (dev) process.env.FLOWSTONE_GATE_SECRETS ||= devSecrets(DEV_DIR)
  if (dev) process.env.FLOWSTONE_BASE_URL ||= dev.http
  return await connect({
    name: 'flowstone cli',
    ...(servers === undefined ? {} : { servers: servers.split(',') }),
    ...(namespace === undefined ? {} : { namespace }),
    ...more,
  })
}

/** Runs a command that connects, does one thing, and ends. */
export async function withFlow(
  options: GlobalOptions,
  act: (flow: Flow, output: Output) => Promise<void>,
): Promise<void> {
  await using flow = await open(options)
  await act(flow, outputOf(options.json === true))
}

/** Waits until somebody asks for the end. Throws the reason (exit code 1) when the connection is closed for good before that: whoever started this process starts it again. */
export async function untilStopped(flow: Flow, stop: { readonly asked: Promise<string> }): Promise<void> {
  const reason = await Promise.race([stop.asked.then(() => undefined), flow.closed])
  if (reason) throw reason
}

/** Resolves at the first SIGTERM, SIGINT (Ctrl-C), or when whoever started this process is gone. At the second one the process ends at once. */
export function stopRequest(): { readonly asked: Promise<string>; [Symbol.dispose](): void } {
  const { promise, resolve } = Promise.withResolvers<string>()
  let count = 0
  const on = (signal: NodeJS.Signals): void => {
    count += 1
    if (count > 1) process.exit(130)
    resolve(signal)
  }
  const gone = (): void => resolve('parent gone')
  process.on('SIGTERM', on).on('SIGINT', on).on('disconnect', gone)
  return {
    asked: promise,
    [Symbol.dispose]: () => void process.off('SIGTERM', on).off('SIGINT', on).off('disconnect', gone),
  }
}
