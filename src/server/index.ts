/**
 * `flowstone/server`: gets a nats-server and runs it. For development, tests and single-machine
 * use; in production a nats-server of your own is used by its address, and nothing here is needed.
 */

export { type ClusterOptions, type RunningCluster, startCluster } from './cluster.ts'
export { type EnsureOptions, ensureNatsServer, type NatsServerBinary, type NatsServerSource } from './ensure.ts'
export { RELEASE_VERSION } from './release.ts'
export { type RunningServer, type ServerOptions, startServer } from './start.ts'
