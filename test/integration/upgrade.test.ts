import { connect as connectNats } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as today from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { oldPackage } from '../kit/old-package.ts'
import { freshNamespace, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { fixtureNames, readFixture, restore } from '../kit/version-fixture.ts'
import { declare, GATES } from '../kit/version-pipeline.ts'

const server = useServer({ syncInterval: 'default' })

describe.each(fixtureNames())('a namespace that version %s has left', (name) => {
  it('goes on: its open run ends, and its sealed runs, values and lists are there', async () => {
    const fixture = readFixture(name)
    const namespace = freshNamespace()
    const nc = await connectNats({ servers: server.url })
    await restore(nc, namespace, fixture)
    await nc.close()
    await using flow = await today.connect({ servers: server.url, namespace, gates: GATES })
    expect((await flow.verify({ only: ['history', 'values'] })).findings).toEqual([])
    const engine = await flow.engine({ sealAfter: 'never' })
    await engine.active
    const { all, sum } = declare(today)
    await flow.worker(all)
    const { open, sealed, ended, failed } = fixture.runs
    await flow.gates.signalByCorrelationKey(`asks ${open}`, 'yes')
    expect(await flow.run(open).result()).toEqual([{ heard: 'yes' }, 6])
    expect(await flow.run(sealed).result()).toBe(6)
    expect(await flow.run(ended).result()).toBe(773)
    expect((await rejection(flow.run(failed).result())).message).toContain('it is broken')
    expect((await flow.runs({ tag: { kind: 'ended' } })).map(({ id }) => id)).toEqual([ended])
    expect(await (await flow.materialize(sum, { key: 'sealed' })).result()).toBe(6)
    expect((await flow.value('kept/large'))?.value).toBe('large '.repeat(20_000))
  })
})

describe('an older version beside this one', () => {
  let old: Awaited<ReturnType<typeof oldPackage>>
  beforeAll(async () => {
    old = await oldPackage('9c2f236')
  })
  afterAll(() => old[Symbol.dispose]())

  /** All kinds of work, with an engine of one version and a worker of another one. */
  async function work(engineOf: typeof today, workerOf: typeof today, clientOf: typeof today): Promise<void> {
    const namespace = freshNamespace()
    const options = { servers: server.url, namespace, gates: GATES }
    await using deciding = await engineOf.connect(options)
    await using working = await workerOf.connect(options)
    await using asking = await clientOf.connect(options)
    const engine = await deciding.engine({ sealAfter: '1s' })
    await engine.active
    await working.worker(declare(workerOf).all)
    const { answered, failing, large, many } = declare(clientOf)
    const runs = [await asking.materialize(many), await asking.materialize(large)]
    const open = await asking.materialize(answered)
    const failed = await asking.materialize(failing)
    expect(await Promise.all(runs.map((run) => run.result()))).toEqual([773, 'large '.repeat(20_000)])
    expect((await rejection(failed.result())).message).toContain('it is broken')
    await until('the gate is open', async () => (await asking.gates.list(open.id)).length === 1)
    await asking.gates.signalByCorrelationKey(`asks ${open.id}`, 'yes')
    expect(await open.result()).toEqual([{ heard: 'yes' }, 6])
    const cancelled = await asking.materialize(answered)
    await cancelled.cancel('enough')
    expect(await rejection(cancelled.result())).toMatchObject({ code: 'cancelled' })
  }

  it('works as an engine with workers and clients of this version', async () => {
    await work(old, today, today)
  })

  it('works as a worker and as a client with an engine of this version', async () => {
    await work(today, old, old)
  })

  it('is replaced by an engine of this version in the middle of a run, and takes over again', async () => {
    const namespace = freshNamespace()
    const options = { servers: server.url, namespace, gates: GATES }
    await using before = await old.connect(options)
    await using after = await today.connect(options)
    const { all, answered } = declare(today)
    const first = await before.engine()
    await first.active
    await after.worker(all)
    const run = await before.materialize(declare(old).answered)
    await until('the gate is open', async () => (await before.gates.list(run.id)).length === 1)
    const second = await after.engine()
    await first.stop()
    await second.active
    await after.gates.signalByCorrelationKey(`asks ${run.id}`, 'yes')
    expect(await run.result()).toEqual([{ heard: 'yes' }, 6])
    expect((await after.verify()).findings).toEqual([])
    const third = await before.engine()
    const next = await after.materialize(answered, { upstream: 'all' })
    await until('the next gate is open', async () => (await after.gates.list(next.id)).length === 1)
    await second.stop()
    await third.active
    await after.gates.signalByCorrelationKey(`asks ${next.id}`, 'no')
    expect(await next.result()).toEqual([{ heard: 'no' }, 6])
  })
})
