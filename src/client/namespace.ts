/**
 * The namespace that a connection is for: there from the start, made by this process, or found as
 * soon as another one has made it. Looking for it makes nothing.
 */

import { FlowStoneError } from '../../streams/errors.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import { findTopology, noNamespace, type Topology } from '../../streams/namespace.ts'
import { patiently } from '../../streams/patiently.ts'
import { type Names, namesOf } from '../../streams/subjects.ts'
import { checkServer, checkTopologyOptions, ensureTopology, type TopologyOptions } from '../../streams/topology.ts'
import { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import { mayMeetDomains, mustStandAlone } from '../log/one-domain.ts'
import type { Logger } from '../telemetry.ts'

const UNFINISHED: ReadonlySet<string> = new Set(['no_namespace', 'importing'])

export class Namespace {
  readonly names: Names
  readonly clock: ServerClock
  readonly #connection: Connection
  readonly #options: TopologyOptions
  readonly #logger: Logger
  #topology: Topology | undefined
  #missing: Error | undefined
  #making: Promise<Topology> | undefined

  constructor(connection: Connection, options: TopologyOptions, logger: Logger) {
    checkTopologyOptions(options)
    this.#connection = connection
    this.#options = options
    this.#logger = logger
    this.names = namesOf(options.namespace ?? 'flowstone')
    this.clock = new ServerClock(connection, this.names.kvStream(this.names.controlBucket))
  }

  /** As far as it is known. Throws `no_namespace` while there is none. */
  get topology(): Topology {
    if (this.#topology) return this.#topology
    throw this.#missing ?? new Error('the namespace was not looked for')
  }

  /** Looks once. No error when there is none. */
  async look(): Promise<void> {
    const { nc } = this.#connection
    await checkServer(nc)
    const jsm = await jetstreamManager(nc)
    this.#missing = undefined
    const asked = patiently(() => findTopology(jsm, this.names, this.#options.shards))
    const found = await asked.catch((error: unknown) => {
      // Made in part, or imported in part: whoever is to finish it connects first.
      if (!(error instanceof FlowStoneError) || !UNFINISHED.has(error.code)) throw error
      this.#missing = error
      return undefined
    })
    if (found) {
      if (mayMeetDomains(nc)) await mustStandAlone(nc, this.names)
      await this.#is(found)
    } else this.#missing ??= await noNamespace(jsm, this.names)
  }

  /** The namespace, which another process may have made meanwhile. Throws `no_namespace`. */
  async found(): Promise<Topology> {
    if (!this.#topology) await this.look()
    return this.topology
  }

  /** The namespace, made if there is none. */
  async foundOrMade(): Promise<Topology> {
    if (!this.#topology) await this.look()
    if (this.#topology) return this.#topology
    // Many may ask at once.
    this.#making ??= this.make().finally(() => {
      this.#making = undefined
    })
    return await this.#making
  }

  /** Makes what is missing of it, and brings it to what the options name. */
  async make(more: TopologyOptions = {}, how: { readonly fewerReplicas?: boolean } = {}): Promise<Topology> {
    const options = { ...this.#options, ...more }
    const { nc } = this.#connection
    await checkServer(nc)
    const isThere = await mustStandAlone(nc, this.names)
    const topology = await ensureTopology(nc, options, how)
    // Another domain may have made it in the same moment.
    if (!isThere) await mustStandAlone(nc, this.names)
    if (options.replicas !== undefined && options.replicas < topology.replicas)
      this.#logger.warn(
        `namespace ${this.names.ns} has ${topology.replicas} copies of its streams and keeps them, though ${options.replicas} were asked for; \`flowstone setup --replicas ${options.replicas}\` lowers it`,
      )
    await this.#is(topology)
    return topology
  }

  async #is(topology: Topology): Promise<void> {
    // The clock first: who asks meanwhile must not go on before it is read.
    await this.clock.ready()
    this.#topology = topology
  }
}
