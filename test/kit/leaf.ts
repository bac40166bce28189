import { jetstreamManager } from '@nats-io/jetstream'
import { connect } from '@nats-io/transport-node'
import { freePort, rawServer } from './guarded.ts'
import { until } from './until.ts'

/**
 * A hub and a leaf, each with a JetStream domain of its own, and a leaf without JetStream: all in
 * one account.
 */
export interface HubAndLeaf extends AsyncDisposable {
  readonly hub: string
  readonly leaf: string
  readonly bare: string
}

/** Who any of the three lets in. */
export const LEAF_USER = { user: 'a', pass: 'a' }

export async function hubAndLeaf(): Promise<HubAndLeaf> {
  const port = await freePort()
  const common = `
host: 127.0.0.1
port: {port}
system_account: SYS
accounts {
  A: { jetstream: JS, users: [ { user: a, password: a } ] }
  SYS: { users: [ { user: sys, password: sys } ] }
}
`
  const account = common.replace('JS', 'enabled')
  const remote = `leafnodes { remotes: [ { url: "nats://a:a@127.0.0.1:${port}", account: A } ] }\n`
  const store = (domain: string): string => `jetstream { store_dir: "{dir}", domain: ${domain} }\n`
  const hub = await rawServer(
    `server_name: hub\n${store('hub')}${account}leafnodes { host: 127.0.0.1, port: ${port} }\n`,
  )
  const leaf = await rawServer(`server_name: leaf\n${store('leaf')}${account}${remote}`)
  const bare = await rawServer(`server_name: bare\n${common.replace('jetstream: JS, ', '')}${remote}`)
  for (const [url, domain] of [
    [hub.url, 'leaf'],
    [leaf.url, 'hub'],
    [bare.url, 'hub'],
  ] as const) {
    const nc = await connect({ servers: url, ...LEAF_USER })
    await until('the leaf nodes are joined', () =>
      jetstreamManager(nc, { domain, timeout: 1000 }).then(
        () => true,
        () => false,
      ),
    )
    await nc.close()
  }
  return {
    hub: hub.url,
    leaf: leaf.url,
    bare: bare.url,
    async [Symbol.asyncDispose]() {
      for (const server of [bare, leaf, hub]) await server[Symbol.asyncDispose]()
    },
  }
}
