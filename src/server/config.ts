/** What goes into the configuration of an embedded server. */
export interface ConfigInput {
  name: string
  /** 0: any free one. */
  port: number
  storeDir: string
  portsDir: string
  syncInterval: 'always' | 'default'
  maxPayload: number | undefined
  /** Of the user `flowstone`; undefined: anybody on this machine may connect. */
  password: string | undefined
  cluster: { name: string; port: number; routes: readonly string[] } | undefined
}

/** Who connects to a server with a password. */
export const SERVER_USER = 'flowstone'

/**
 * The configuration file's text. JSON, which nats-server reads too: quoting is then JSON's, and a
 * path with a quote or a backslash in it does no harm.
 */
export function renderConfig(input: ConfigInput): string {
  const config = {
    server_name: input.name,
    // Never anything else: it is for this machine.
    host: '127.0.0.1',
    port: input.port === 0 ? -1 : input.port,
    ports_file_dir: input.portsDir,
    jetstream: {
      store_dir: input.storeDir,
      ...(input.syncInterval === 'always' ? { sync_interval: 'always' } : {}),
    },
    ...(input.password === undefined ? {} : { authorization: { user: SERVER_USER, password: input.password } }),
    ...(input.maxPayload === undefined ? {} : { max_payload: input.maxPayload }),
    ...(input.cluster === undefined
      ? {}
      : {
          cluster: {
            name: input.cluster.name,
            host: '127.0.0.1',
            port: input.cluster.port,
            routes: input.cluster.routes,
          },
        }),
  }
  return `${JSON.stringify(config, null, 2)}\n`
}
