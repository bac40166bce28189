/**
 * Where a bench runs: a nats-server of its own on a scratch folder, and namespaces that are made
 * for one repeat each and deleted after it.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { jetstreamManager } from '@nats-io/jetstream'
import {
  type ConnectOptions,
  connect,
  type EngineOptions,
  type Flow,
  type Pipeline,
  type WorkerOptions,
} from '../src/index.ts'
import { Connection } from '../src/log/connection.ts'
import { startServer } from '../src/server/index.ts'
import { ensureTopology, type Topology } from '../streams/topology.ts'
import type { Child } from './child.ts'
import type { Fsync } from './figures.ts'

/**
 * How processes are started whose memory is measured, as docs/architecture.md advises where memory
 * is short. By default, Node lets the young generation grow by a hundred megabytes while much is
 * allocated. It also collects the old one late when the machine is busy. Neither says what is held.
 */
export const SMALL_HEAP = ['--max-semi-space-size=4', '--max-old-space-size=192'] as const

export interface Rig extends AsyncDisposable {
  readonly url: string
  readonly serverVersion: string
  readonly serverPid: number
}

export async function startRig(fsync: Fsync): Promise<Rig> {
  const scratch = mkdtempSync(join(tmpdir(), 'flowstone-bench-'))
  const clean = (): void => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 })
  try {
    const server = await startServer({ dir: join(scratch, 'nats'), syncInterval: fsync })
    return {
      url: server.url,
      serverVersion: server.version,
      serverPid: server.pid,
      async [Symbol.asyncDispose]() {
        await server.stop()
        clean()
      },
    }
  } catch (error) {
    clean()
    throw error
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const

/**
 * Ends the rig and this process when somebody interrupts it, until the returned function is called.
 * The server is stopped before its folder is deleted: the other way round it would make some of it
 * anew.
 */
export function endOnSignals(rig: Rig, onSignal: () => void = () => undefined): () => void {
  const interrupted = (): void => {
    onSignal()
    rig[Symbol.asyncDispose]().then(
      () => process.exit(130),
      () => process.exit(130),
    )
  }
  for (const signal of SIGNALS) process.once(signal, interrupted)
  return () => {
    for (const signal of SIGNALS) process.off(signal, interrupted)
  }
}

/**
 * Engine, worker (or workers) and client on one connection in this process: what the raw ceiling is
 * one process of, too.
 */
export async function withEngine<T>(
  url: string,
  pipeline: Pipeline,
  use: (flow: Flow) => Promise<T>,
  workers: readonly WorkerOptions[] = [{}],
  settings: ConnectOptions = {},
  engineOptions: EngineOptions = {},
): Promise<T> {
  const namespace = newNamespace()
  try {
    await using flow = await connect({ ...settings, servers: url, namespace })
    const engine = await flow.engine(engineOptions)
    for (const options of workers) await flow.worker(pipeline, options)
    await engine.active
    return await use(flow)
  } finally {
    await dropNamespace(url, namespace)
  }
}

/** As `withEngine`, with the engine in a process of its own: worker and callers are in this one. */
export async function withEngineApart<T>(
  url: string,
  engine: Child,
  pipeline: Pipeline,
  use: (flow: Flow) => Promise<T>,
  workers: readonly WorkerOptions[] = [{}],
  settings: ConnectOptions = {},
): Promise<T> {
  return await withNamespace(url, async (namespace) => {
    engine.say(namespace)
    await engine.line()
    try {
      await using flow = await connect({ ...settings, servers: url, namespace })
      for (const options of workers) await flow.worker(pipeline, options)
      return await use(flow)
    } finally {
      engine.say('')
      await engine.line()
    }
  })
}

/** A new namespace, without an engine or a worker. */
export async function withNamespace<T>(url: string, use: (namespace: string) => Promise<T>): Promise<T> {
  const namespace = newNamespace()
  try {
    return await use(namespace)
  } finally {
    await dropNamespace(url, namespace)
  }
}

/** The same streams as the engine's, without an engine or a worker. */
export async function withRaw<T>(
  url: string,
  use: (connection: Connection, topology: Topology) => Promise<T>,
): Promise<T> {
  const namespace = newNamespace()
  const connection = await Connection.open({ servers: url })
  try {
    return await use(connection, await ensureTopology(connection.nc, { namespace }))
  } finally {
    await connection.close()
    await dropNamespace(url, namespace)
  }
}

let namespaces = 0
function newNamespace(): string {
  return `bench-${process.pid}-${++namespaces}`
}

/** So that a later repeat does not pay for what an earlier one left. */
async function dropNamespace(url: string, namespace: string): Promise<void> {
  const connection = await Connection.open({ servers: url })
  try {
    const jsm = await jetstreamManager(connection.nc)
    const names: string[] = []
    for await (const name of jsm.streams.names()) if (name.includes(`${namespace}_`)) names.push(name)
    // The feed is sourced from the log: it goes first.
    names.sort((a, b) => Number(b.endsWith('_FEED')) - Number(a.endsWith('_FEED')))
    for (const name of names) await jsm.streams.delete(name)
  } finally {
    await connection.close()
  }
}
