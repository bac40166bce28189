import { expect, it } from 'vitest'
import { Base } from '../../src/engine/history/base.ts'
import { Changed } from '../../src/engine/history/changed.ts'
import { Stored } from '../../src/engine/history/stored.ts'
import { Unsealed } from '../../src/engine/history/unsealed.ts'
import { Waves } from '../../src/engine/history/waves.ts'
import { Checkpointer } from '../../src/engine/shard/checkpoint.ts'
import { Store } from '../../src/engine/shard/store.ts'
import type { ServerClock } from '../../src/log/clock.ts'
import { Connection } from '../../src/log/connection.ts'
import { streamInfo } from '../../src/log/nats.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace } from '../kit/stage.ts'

const server = useServer({ syncInterval: 'default' })

it('facts of a run that lasted long stay for the grace of its own wave, also behind an older one', async () => {
  const connection = await Connection.open({ servers: server.url })
  try {
    const { names } = await ensureTopology(connection.nc, { namespace: freshNamespace() })
    const paths = [
      'run.0-long.requested',
      'run.0-old.requested',
      'run.0-old.finished',
      'run.0-long.finished',
      'run.0-x.z',
    ]
    for (const path of paths) await connection.nc.request(names.fact(0, path), '{}')
    const left = async (): Promise<string[]> => {
      const { state } = await streamInfo(connection.nc, names.log(0), names.fact(0, '>'))
      return Object.keys(state.subjects ?? {})
        .map((subject) => names.factPath(subject) ?? '')
        .toSorted()
    }
    const options = { connection, names, shard: 0, engine: 'engine' }
    const checkpointer = new Checkpointer(connection, names, 0, 'engine')
    await checkpointer.takeOver()
    await checkpointer.write([], 5, { seq: 5, ms: 1 })
    const base = await Base.takeOver(options)
    let nowMs = 1_000_000
    const sealer = {
      ...options,
      clock: { now: () => nowMs } as ServerClock,
      logger: console,
      shards: 1,
      retention: {},
      afterMs: 60_000,
      snapshotEvery: 16_000,
      state: new Store(connection, names, 0, checkpointer),
      stored: new Stored(checkpointer),
      changed: new Changed(16_000),
      shownTo: () => Number.POSITIVE_INFINITY,
      provenTo: () => Number.POSITIVE_INFINITY,
      leaving: async () => undefined,
      isStopped: () => false,
      touched: () => undefined,
    }
    const waves = new Waves(sealer, base)
    waves.add({ from: 2, upTo: 3, runs: ['0-old'], keys: ['run.0-old'], atMs: nowMs })
    nowMs += 60_000
    waves.add({ from: 1, upTo: 4, runs: ['0-long'], keys: ['run.0-long'], atMs: nowMs })
    expect(await waves.purge(new Unsealed())).toBe(true)
    expect(await left()).toEqual(paths.toSorted())
    nowMs += 60_000
    // A stroke is made at most every thirty seconds, but by an engine that has just begun.
    await base.checkpoint(4, undefined, base.manifest)
    const next = new Waves(sealer, base)
    await next.begin()
    expect(await next.purge(new Unsealed())).toBe(true)
    expect(await left()).toEqual(['run.0-x.z'])
  } finally {
    await connection.close()
  }
})
