/** What a peer is: `main.ts` starts it, `measure.ts` gives it work. */

/** A system that runs, with its server, its workers and the callers' side in this process. */
export interface Works extends AsyncDisposable {
  /** Of the server beside it, or of itself. */
  readonly version: string
  /** Fans out n instances that do nothing and gathers them: how many the gather has seen. */
  fanOut(n: number): Promise<number>
  /** Three steps in a row that do nothing, until the caller knows that the last has ended. */
  threeSteps(): Promise<void>
}

/** Starts a system. `way` is a key of the peer's `ways`. What a peer's module exports. */
export type Begin = (way: string) => Promise<Works>

export interface Peer {
  readonly module: string
  /** Optional packages: npm installs them in this folder. */
  readonly packages: readonly string[]
  readonly program: 'redis-server' | 'initdb' | undefined
  /** Ways to keep data, each with what is on disk before an answer. A row of the table each. */
  readonly ways: Readonly<Record<string, string>>
  /** How the two works are mapped to it. */
  readonly how: string
}

const POSTGRES = { default: 'each commit is synced (fsync and synchronous_commit on)' }

export const PEERS: Readonly<Record<string, Peer>> = {
  flowstone: {
    module: './flowstone.ts',
    packages: [],
    program: undefined,
    ways: { always: 'each write is synced (sync_interval: always)' },
    how: 'a scatter with a gather; a run of three assets',
  },
  bullmq: {
    module: './others/bullmq.ts',
    packages: ['bullmq', 'ioredis'],
    program: 'redis-server',
    ways: {
      everysec: 'nothing: a file is synced every second (appendfsync everysec)',
      always: 'each write is synced (appendfsync always)',
    },
    how: 'a flow with a child for each instance; three jobs, each of which adds the next',
  },
  'graphile-worker': {
    module: './others/graphile-worker.ts',
    packages: ['graphile-worker'],
    program: 'initdb',
    ways: POSTGRES,
    how: 'addJobs, and one more job when none is left; three jobs, each of which adds the next',
  },
  dbos: {
    module: './others/dbos.ts',
    packages: ['@dbos-inc/dbos-sdk'],
    program: 'initdb',
    ways: POSTGRES,
    how: 'a workflow that enqueues a workflow for each instance and waits for all; a workflow of three steps',
  },
  restate: {
    module: './others/restate.ts',
    packages: ['@restatedev/restate-server', '@restatedev/restate-sdk', '@restatedev/restate-sdk-clients'],
    program: undefined,
    ways: { default: 'each batch of its log is synced (its default)' },
    how: 'a handler that calls another for each instance; a handler of three durable steps',
  },
}
