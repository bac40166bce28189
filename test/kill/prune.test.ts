import { jetstreamManager } from '@nats-io/jetstream'
import { describe, expect, it } from 'vitest'
import { until } from '../kit/until.ts'
import { rows, three } from './programs/rows.ts'
import { startRig } from './rig.ts'

const ROWS = { KILL_ROWS: '1' }
const SEALS = { sealAfter: '1s' } as const
const PRUNES = { sealAfter: '1s', retention: { runs: '1s' } } as const
const RUNS = 3

/** What stays is packed; before the switch, and behind it. */
const STEPS = ['after history_0[.]pack[.]', 'before history_0[.]pruned[.]', 'after history_0[.]pruned[.]'] as const

describe('an engine that prunes runs', () => {
  it('and dies at any step of it prunes each run whole and once, and keeps the newest values', async () => {
    await using rig = await startRig()
    const first = await rig.engine(SEALS)
    await rig.start('worker', {}, ROWS)
    const runs = await Promise.all(Array.from({ length: RUNS }, () => rig.materialize<string>(three, undefined, rows)))
    for (const run of runs) expect(await run.result()).toBe('one two three')
    const listed = async (): Promise<unknown[]> => (await rig.flow.runs({ limit: 100 })).map(({ id }) => id)
    const jsm = await jetstreamManager(rig.nc)
    const stream = rig.names.kvStream(rig.names.historyBucket(0))
    const marks = { subjects_filter: rig.names.kvSubject(rig.names.historyBucket(0), 'wave.>') }
    await until(
      'all are sealed',
      async () => Object.keys((await jsm.streams.info(stream, marks)).state.subjects ?? {}).length > 0,
    )
    await first.stop()
    for (const at of STEPS) {
      await rig.dies('engine', { KILL_AT: at }, PRUNES)
      // All are there, or none.
      expect([0, RUNS]).toContain((await listed()).length)
    }
    await rig.engine(PRUNES)
    await until('no run is listed', async () => (await listed()).length === 0)
    const records = await rig.flow.retention.records()
    expect(records.reduce((sum, record) => sum + record.runs, 0)).toBe(RUNS)
    const newest = await rig.flow.value(three)
    expect(newest?.value).toBe('one two three')
    const remains = await Promise.all(runs.map(({ id }) => rig.flow.retention.remains(id)))
    expect(remains.filter((one) => one !== undefined).map(({ run }) => run)).toEqual([newest?.run])
    const gone = runs.find(({ id }) => id !== newest?.run)
    // A client may remember for a moment which packs there are.
    const isPruned = async (): Promise<boolean> =>
      await rig.flow
        .run(gone?.id ?? '')
        .result()
        .then(
          () => false,
          (error) => error.code === 'pruned',
        )
    await until('the run is pruned', isPruned)
    await rig.expectProven()
  })
})
