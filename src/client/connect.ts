/** `connect`: the door to a namespace. */
import { Connection } from '../log/connection.ts'
import { loggerOf } from '../logs/logger.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { checkBy } from './by.ts'
import { Flow } from './flow.ts'
import { Namespace } from './namespace.ts'
import { CONNECT_OPTIONS, type ConnectOptions } from './options.ts'

/**
 * Connects, checks the server, and looks for the namespace. Makes nothing: the first engine, the
 * first worker, `setup`, and who takes from a limit make the namespace. Errors: `unreachable`,
 * `server_too_old`, `no_jetstream`, `invalid`.
 */
export async function connect(options: ConnectOptions = {}): Promise<Flow> {
  refuseUnknown('connect', options, CONNECT_OPTIONS)
  const logger = loggerOf(options.logger)
  const connection = await Connection.open(options, logger)
  try {
    // The environment is read here: what knows the wire knows no process.
    const name = options.namespace ?? (process.env.FLOWSTONE_NAMESPACE || undefined)
    const settings = name === undefined ? options : { ...options, namespace: name }
    if (options.by !== undefined) checkBy('connect', options.by)
    const namespace = new Namespace(connection, settings, logger)
    await namespace.look()
    return new Flow(connection, namespace, { ...options, logger })
  } catch (error) {
    const explained = await connection.explained(error)
    await connection.close()
    throw explained
  }
}
