import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { jetstreamManager } from '@nats-io/jetstream'
import { describe, expect, it } from 'vitest'
import { connect } from '../../src/index.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { factsOf, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { events } from './programs/events.ts'
import { rows, three } from './programs/rows.ts'
import { startRig } from './rig.ts'

const COPY = 'copy'
/** When the lists are stored, and when the state is. */
const STEPS = ['after copy_history_0[.]runs[.]', 'before log[.]0[.]pipeline[.]'] as const

describe('an export', () => {
  it('that dies leaves a part that no import takes, and is written whole when it is run again', async () => {
    await using rig = await startRig()
    using scratch = scratchFolder()
    await rig.engine({ sealAfter: 'never' })
    await rig.start('worker', {}, { KILL_ROWS: '1' })
    const runs = await Promise.all(Array.from({ length: 60 }, (_, i) => rig.materialize(three, `key ${i}`, rows)))
    for (const run of runs) await run.result()
    const archive = join(scratch.path, 'all.jsonl')
    await rig.dies('export', {}, { archive })
    const left = readdirSync(scratch.path)
    expect(left).toEqual([expect.stringMatching(/^all\.jsonl\..*\.part$/)])
    await using copy = await connect({ servers: rig.url, namespace: COPY })
    const refused = await rejection(copy.import(join(scratch.path, left[0] ?? '')))
    expect(refused).toMatchObject({ code: 'bad_archive', message: expect.stringMatching(/no end/) })
    expect(await rejection(copy.runs())).toMatchObject({ code: 'no_namespace' })
    expect(await rig.flow.export({ to: archive, all: true })).toMatchObject({ runs: runs.length })
    expect(await copy.import(archive)).toMatchObject({ runs: runs.length })
    expect(await copy.runs({ limit: 100 })).toEqual(await rig.flow.runs({ limit: 100 }))
  })
})

describe('an import', () => {
  it('that dies leaves a namespace that nobody can use, and begins anew when it is run again', async () => {
    await using rig = await startRig()
    using scratch = scratchFolder()
    await rig.engine({ sealAfter: 'never' })
    await rig.start('worker', {}, { KILL_ROWS: '1' })
    const runs = await Promise.all(Array.from({ length: 5 }, (_, i) => rig.materialize(three, `key ${i}`, rows)))
    for (const run of runs) await run.result()
    const archive = join(scratch.path, 'all.jsonl')
    await rig.flow.export({ to: archive, all: true })

    await using copy = await connect({ servers: rig.url, namespace: COPY })
    for (const at of STEPS) {
      await rig.dies('import', { KILL_AT: at }, { namespace: COPY, archive })
      expect(await rejection(copy.runs())).toMatchObject({ code: 'importing' })
      expect(await rejection(copy.engine())).toMatchObject({ code: 'importing' })
      expect(await rejection(copy.setup())).toMatchObject({ code: 'importing' })
    }
    expect(await copy.import(archive)).toMatchObject({ runs: runs.length })
    expect(await copy.runs()).toEqual(await rig.flow.runs())
    for (const { id } of runs) {
      expect(await copy.run(id).result()).toBe('one two three')
      expect(await factsOf(copy, id)).toEqual(await factsOf(rig.flow, id))
    }
    expect(await copy.value(three)).toEqual(await rig.flow.value(three))
    const again = await copy.materialize(three, { pipeline: rows, key: 'key 3' })
    expect([again.id, again.isNew]).toEqual([runs[3]?.id, false])
  })

  it('that dies between positions stores each once when it is run again', async () => {
    await using rig = await startRig()
    using scratch = scratchFolder()
    const jsm = await jetstreamManager(rig.nc)
    await jsm.streams.add({ name: 'ORDERS', subjects: ['orders'] })
    await jsm.streams.add({ name: 'CHANGES', subjects: ['changes'] })
    await rig.engine({ sealAfter: 'never' })
    const worker = await rig.start('worker', {}, { KILL_EVENTS: '1' })
    for (const id of ['a', 'b', 'c']) rig.nc.publish('orders', JSON.stringify({ id }))
    await rig.nc.flush()
    await until('they are billed', async () => (await rig.facts('run.*.finished')) >= 3)
    rig.nc.publish('changes', JSON.stringify({ of: 'x', n: 1 }))
    await rig.nc.flush()
    await until('a change waits', async () =>
      [...(await rig.state()).keys()].some((key) => key.includes('event_group')),
    )
    await worker.kill()
    const archive = join(scratch.path, 'all.jsonl')
    expect(await rig.flow.export({ to: archive, all: true })).toMatchObject({ runs: 3, positions: 3 })

    for (const at of ['after log[.]0[.]subscription[.].*[.]taken[.]', 'after log[.]0[.]subscription[.].*[.]timer'])
      await rig.dies('import', { KILL_AT: at }, { namespace: COPY, archive })
    await using copy = await connect({ servers: rig.url, namespace: COPY })
    expect(await copy.import(archive)).toMatchObject({ runs: 3, positions: 3 })
    const { state } = await jsm.streams.info(`${COPY}_LOG_0`, { subjects_filter: `${COPY}.log.0.subscription.>` })
    expect(Object.values(state.subjects ?? {})).toEqual([1, 1, 1])
    // The change was taken, and its time comes here.
    await (await copy.engine()).active
    await copy.worker(events)
    await until('the change has its run', async () => (await copy.runs({ target: 'events/report' })).length === 1)
    expect((await copy.partitions('events/billed')).toSorted()).toEqual(['a', 'b', 'c'])
    expect(await copy.runs({ target: 'events/billed' })).toHaveLength(3)
  })
})
