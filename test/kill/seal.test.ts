import { jetstreamManager } from '@nats-io/jetstream'
import { describe, expect, it } from 'vitest'
import { until } from '../kit/until.ts'
import { rows, three } from './programs/rows.ts'
import { type Rig, startRig } from './rig.ts'

const ROWS = { KILL_ROWS: '1' }
const SEALS = { sealAfter: '1s' } as const
const WHOLE = 'one two three'
const KINDS = ['run.requested', 'asset.materialized', 'asset.materialized', 'asset.materialized', 'run.finished']

async function sealedSoon(rig: Rig): Promise<void> {
  const jsm = await jetstreamManager(rig.nc)
  await until('nothing but the last fact is on the log', async () => {
    const { state } = await jsm.streams.info(rig.names.log(0), { subjects_filter: rig.names.fact(0, 'run.>') })
    return Object.keys(state.subjects ?? {}).length <= 1
  })
}

/** Each run ran once, its facts are there once, and its key leads to it. */
async function expectAll(rig: Rig, ids: readonly string[]): Promise<void> {
  const again = await Promise.all(ids.map((_, i) => rig.materialize<string>(three, `key ${i}`, rows)))
  expect(again.map(({ id }) => id)).toEqual(ids)
  for (const run of again) {
    expect(run.isNew).toBe(false)
    expect(await run.result()).toBe(WHOLE)
    const kinds: string[] = []
    // It is written when code lasts a while.
    for await (const { kind } of rig.flow.history(run.id)) if (kind !== 'asset.started') kinds.push(kind)
    expect(kinds).toEqual(KINDS)
  }
  expect(rig.noted()).toHaveLength(3 * ids.length)
  expect((await rig.flow.runs({ limit: 1000 })).map(({ id }) => id).toSorted()).toEqual(ids.toSorted())
}

async function runAll(rig: Rig, count: number): Promise<string[]> {
  const runs = await Promise.all(Array.from({ length: count }, (_, i) => rig.materialize(three, `key ${i}`, rows)))
  for (const run of runs) expect(await run.result()).toBe(WHOLE)
  return runs.map(({ id }) => id)
}

/** At each step of it: packs, the wave, the documents of the state, and a base that is copied. */
const STEPS = ['before history_0[.]wave', 'after history_0[.]wave', 'after state_0[.]run[.]'] as const
/** At each step that stores changes of the state. */
const CHANGES = ['before history_0[.]changes[.]', 'after history_0[.]changes[.]'] as const
const COPY = 'after state_0[.]runs[.]'

describe('an engine that seals runs', () => {
  it('and dies at any step of it leaves every run whole to the next one', async () => {
    await using rig = await startRig()
    const first = await rig.engine()
    await rig.start('worker', {}, ROWS)
    const ids = await runAll(rig, 10)
    await first.stop()
    for (const at of STEPS) await rig.dies('engine', { KILL_AT: at }, SEALS)
    const next = await rig.engine(SEALS)
    await sealedSoon(rig)
    await next.stop()
    // The state is made again of the base.
    await (await jetstreamManager(rig.nc)).streams.delete(rig.names.kvStream(rig.names.stateBucket(0)))
    await rig.dies('engine', { KILL_AT: COPY }, SEALS)
    await rig.engine(SEALS)
    await expectAll(rig, ids)
  })

  it('and dies before it has marked that there is a history leaves the mark to the next one', async () => {
    await using rig = await startRig()
    await rig.start('worker', {}, ROWS)
    const run = await rig.materialize<string>(three, 'key 0', rows)
    await rig.dies('engine', { KILL_AT: 'after history_0[.]manifest' }, SEALS)
    const { controlBucket } = rig.names
    const jsm = await jetstreamManager(rig.nc)
    const mark = async (): Promise<unknown> =>
      await jsm.streams.getMessage(rig.names.kvStream(controlBucket), {
        last_by_subj: rig.names.kvSubject(controlBucket, 'sealed.0'),
      })
    expect(await mark()).toBeNull()
    // It has nothing to seal by itself.
    await rig.engine()
    await until('the mark is there', async () => (await mark()) !== null)
    expect(await run.result()).toBe(WHOLE)
  })

  it('and dies while it stores blocks of the proof leaves no fact without a block, and none in two', async () => {
    await using rig = await startRig()
    await rig.start('worker', {}, ROWS)
    await (await rig.engine(SEALS)).stop()
    const runs = []
    for (const at of ['before kill[.]proof[.]0[.]', 'after kill[.]proof[.]0[.]', 'before kill[.]proof[.]0[.]']) {
      runs.push(await rig.materialize(three, `key ${runs.length}`, rows))
      await rig.dies('engine', { KILL_AT: at }, SEALS)
    }
    const last = await rig.engine(SEALS)
    for (const run of runs) expect(await run.result()).toBe(WHOLE)
    await sealedSoon(rig)
    await last.stop()
    const [report] = await rig.flow.proof.verify()
    expect(report).toMatchObject({ findings: [], gaps: [], newer: 0, uncovered: 0, covers: { from: 1 } })
    expect(report?.intact).toBe((report?.facts ?? 0) - (report?.left ?? 0))
    await expectAll(
      rig,
      runs.map(({ id }) => id),
    )
  })

  it('and dies as it stores changes of the state shows each moment as the log says', async () => {
    await using rig = await startRig()
    await rig.start('worker', {}, ROWS)
    const often = { snapshotEvery: 5 }
    const ids: string[] = []
    for (const at of CHANGES) {
      const run = await rig.materialize(three, `key ${ids.length}`, rows)
      ids.push(run.id)
      await rig.dies('engine', { KILL_AT: at }, often)
    }
    const last = await rig.engine(often)
    for (const id of ids) expect(await rig.flow.run(id).result()).toBe(WHOLE)
    const bucket = rig.names.historyBucket(0)
    const jsm = await jetstreamManager(rig.nc)
    await until('changes are stored', async () => {
      const subjects_filter = rig.names.kvSubject(bucket, 'changes.>')
      const { state } = await jsm.streams.info(rig.names.kvStream(bucket), { subjects_filter })
      return Object.keys(state.subjects ?? {}).length > 0
    })
    await last.stop()
    const end = (await jsm.streams.info(rig.names.log(0))).state.last_seq
    const picture = async (): Promise<unknown[]> =>
      await Promise.all(
        Array.from({ length: end }, async (_, i) => {
          const then = rig.flow.at(i + 1)
          return [await then.runs(), await then.runs({ open: true }), await then.value(three)]
        }),
      )
    const shown = await picture()
    await jsm.streams.purge(rig.names.kvStream(bucket), { filter: rig.names.kvSubject(bucket, 'changes') })
    expect(await picture()).toEqual(shown)
    // The next one deletes what no list names any more.
    await rig.engine(often)
    await until('nothing is left of it', async () => {
      const subjects_filter = rig.names.kvSubject(bucket, 'changes.>')
      const { state } = await jsm.streams.info(rig.names.kvStream(bucket), { subjects_filter })
      return Object.keys(state.subjects ?? {}).length === 0
    })
  })

  it('and is killed again and again, as its server is, loses no run, and does none twice', async () => {
    await using rig = await startRig({ killsServer: true })
    await rig.start('worker', {}, ROWS)
    let engine = await rig.engine(SEALS)
    const ids = await runAll(rig, 20)
    for (const afterMs of [700, 1300, 2000]) {
      // The moment is what is tried here.
      await new Promise((resolve) => setTimeout(resolve, afterMs))
      if (afterMs === 1300) {
        await rig.killServer()
        await rig.startServer()
        continue
      }
      await engine.kill()
      engine = await rig.engine(SEALS)
    }
    await sealedSoon(rig)
    await expectAll(rig, ids)
  })
})
