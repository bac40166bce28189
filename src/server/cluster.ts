import { join, resolve } from 'node:path'
import { InvalidError } from '../../streams/errors.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { findFreePorts } from './ports.ts'
import { type RunningServer, type ServerOptions, startServer } from './start.ts'

/** Options of `startCluster`. What it shares with `startServer` holds for each node. */
export interface ClusterOptions
  extends Pick<ServerOptions, 'syncInterval' | 'maxPayload' | 'version' | 'serverPath' | 'quiet' | 'readyTimeoutMs'> {
  /** Folder; each node has one of its own in it (`n1`, `n2`, …). Default: `.flowstone/cluster`. */
  dir?: string
  /** How many servers: odd, so that a majority exists. Default: 3. */
  nodes?: number
}

const OPTIONS: OptionNames<ClusterOptions> = {
  syncInterval: true,
  maxPayload: true,
  version: true,
  serverPath: true,
  quiet: true,
  readyTimeoutMs: true,
  dir: true,
  nodes: true,
}

/**
 * Some nats-servers on this machine that form one cluster, for trying out replicas and the loss of
 * a node.
 */
export interface RunningCluster extends AsyncDisposable {
  /** All nodes' addresses, comma separated: what a client takes as its servers. */
  readonly url: string
  readonly urls: readonly string[]
  /** As they are now; `restart` puts a new one in place. */
  readonly nodes: readonly RunningServer[]
  /**
   * Starts a node again, on its folder and port, after it was killed or stopped (a running one is
   * stopped first).
   */
  restart(index: number): Promise<RunningServer>
  /** Stops all nodes. */
  stop(): Promise<void>
}

/**
 * Starts a cluster and resolves when every node takes requests, that is, when they have elected a
 * leader.
 * @throws As startServer; when one node fails, the others are stopped.
 */
export async function startCluster(options: ClusterOptions = {}): Promise<RunningCluster> {
  refuseUnknown('startCluster', options, OPTIONS)
  const count = options.nodes ?? 3
  if (!Number.isInteger(count) || count < 1 || count > 9 || count % 2 === 0) {
    throw new InvalidError(`nodes: must be 1, 3, 5, 7 or 9, not ${count}`)
  }
  const { dir = '.flowstone/cluster', nodes: _nodes, ...common } = options
  const routePorts = await findFreePorts(count)
  const routes = routePorts.map((port) => `nats-route://127.0.0.1:${port}`)
  const startNode = (index: number, port: number) => {
    const node = `n${index + 1}`
    const cluster = { name: 'flowstone', node, port: routePorts[index] ?? 0, routes }
    return startServer({ ...common, dir: join(resolve(dir), node), port, cluster })
  }

  const starts = await Promise.allSettled(routePorts.map((_, index) => startNode(index, 0)))
  const nodes = starts.filter((start) => start.status === 'fulfilled').map((start) => start.value)
  const failed = starts.find((start) => start.status === 'rejected')
  const stop = async () => {
    await Promise.all(nodes.map((node) => node.stop()))
  }
  if (failed) {
    await stop()
    throw failed.reason
  }

  const urls = nodes.map((node) => node.url)
  return {
    url: urls.join(','),
    urls,
    nodes,
    async restart(index) {
      const old = nodes[index]
      if (old === undefined) throw new InvalidError(`index: must be 0 to ${nodes.length - 1}, not ${index}`)
      await old.stop()
      const restarted = await startNode(index, old.port)
      nodes[index] = restarted
      return restarted
    },
    stop,
    [Symbol.asyncDispose]: stop,
  }
}
