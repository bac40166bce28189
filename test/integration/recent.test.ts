import { expect, it } from 'vitest'
import { stateKey } from '../../projections/state.ts'
import { Base } from '../../src/engine/history/base.ts'
import { Changed } from '../../src/engine/history/changed.ts'
import { Recent } from '../../src/engine/history/recent.ts'
import { Connection } from '../../src/log/connection.ts'
import { leaderGet, streamInfo } from '../../src/log/nats.ts'
import { changesList } from '../../src/log/past/changes.ts'
import { pastShard } from '../../src/log/past/shard.ts'
import { encodeJson } from '../../streams/codec.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace } from '../kit/stage.ts'

const server = useServer({ syncInterval: 'default' })
/** One more than changes there may be without a whole. */
const ALL = 66

it('changes have a whole now and then, go when they are old, and count for the log that they are of', async () => {
  const connection = await Connection.open({ servers: server.url })
  try {
    const { names } = await ensureTopology(connection.nc, { namespace: freshNamespace() })
    const options = { connection, names, shard: 0, engine: 'engine', snapshotEvery: 1 }
    const changed = new Changed(1)
    const recentOf = async (): Promise<Recent> => {
      const recent = new Recent({ ...options, changed }, await Base.takeOver(options))
      await recent.begin()
      return recent
    }
    const recent = await recentOf()
    changed.begin(0)
    for (let seq = 1; seq <= ALL; seq++) {
      await connection.nc.request(names.fact(0, `run.0-r${seq}.x`), '{}')
      const { timeMs = 0 } = (await leaderGet(connection.nc, names.log(0), { seq })) ?? {}
      const run = { id: `0-r${seq}`, seq, status: 'running' }
      changed.put(stateKey.run(run.id), run, encodeJson(run))
      // Each other run ends with the next fact.
      const before = `0-r${seq - 1}`
      if (seq % 2 === 0) changed.put(stateKey.run(before), { finishedMs: 1 }, new Uint8Array(1))
      changed.fact(1)
      // The last one is of another log than this.
      const cut = changed.cut(seq, { seq, ms: seq === ALL ? timeMs + 5 : timeMs })
      if (!cut) throw new Error('there is no cut')
      changed.offer(cut)
      await recent.store()
    }
    const places = async () => (await changesList(options, 0))?.all ?? []
    const keys = async (): Promise<string[]> => {
      const bucket = names.historyBucket(0)
      const { state } = await streamInfo(connection.nc, names.kvStream(bucket), names.kvSubject(bucket, '>'))
      const found = Object.keys(state.subjects ?? {}).map((subject) => subject.split('.').slice(2).join('.'))
      return found.filter((key) => /^(changes|whole)\./.test(key)).toSorted()
    }
    const stored = await places()
    expect(stored.flatMap(({ seq, whole }) => (whole === undefined ? [] : [seq]))).toEqual([64])
    const openAt = async (seq: number): Promise<string[]> => {
      const { view } = await pastShard(options, 0, { seq })
      return view.keys('run.').filter((key) => view.get(key) !== undefined)
    }
    for (const seq of [5, 64, 65]) {
      const open = Array.from({ length: seq }, (_, i) => i + 1).filter((i) => i % 2 === 0 || i === seq)
      expect((await openAt(seq)).toSorted()).toEqual(open.map((i) => stateKey.run(`0-r${i}`)).toSorted())
    }
    // Not with what is of another log. The next engine deletes it.
    expect(await openAt(ALL)).toHaveLength(33)
    const next = await recentOf()
    expect((await places()).map(({ seq }) => seq)).toEqual(Array.from({ length: ALL - 1 }, (_, i) => i + 1))
    expect(await keys()).not.toContain(`changes.${ALL - 1}`)
    expect(await openAt(ALL)).toHaveLength(33)
    await next.drop(62)
    expect((await places()).map(({ seq }) => seq)).toEqual([63, 64, 65])
    expect(await keys()).toEqual(['changes.62', 'changes.63', 'changes.64', 'whole.63'])
    expect(await openAt(65)).toHaveLength(33)
  } finally {
    await connection.close()
  }
})
