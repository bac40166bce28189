/** Runs come, are pruned at any point, and the state is made again: all agrees with a model. */
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { runs } from '../kit/runs.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const PARTITIONS = ['x', 'y'] as const
/** `takes`: the value of the first asset that is there, if it is. */
const planned = fc.record({
  partition: fc.constantFrom(...PARTITIONS),
  fails: fc.boolean(),
  takes: fc.boolean(),
})
/** What happens behind the runs of a round. */
const round = fc.record({
  made: fc.array(planned, { minLength: 1, maxLength: 4 }),
  prunes: fc.boolean(),
  rebuilds: fc.boolean(),
})

/** Of the first run that is pruned nothing is left but what it was. */
const LINEAGE: typeof round extends fc.Arbitrary<infer Round> ? Round : never = {
  made: [
    { partition: 'y', fails: true, takes: true },
    { partition: 'y', fails: false, takes: true },
    { partition: 'y', fails: true, takes: false },
    { partition: 'y', fails: true, takes: true },
  ],
  prunes: true,
  rebuilds: false,
}

it('after pruning at any point, rebuild, verify and reuse agree with a model', { timeout: 120_000 }, async () => {
  const nc = await connectNats({ servers: server.url })
  const jsm = await jetstreamManager(nc)
  await fc.assert(
    fc.asyncProperty(fc.array(round, { minLength: 2, maxLength: 3 }), async (rounds) => {
      let count = 0
      const failing = new Set<string>()
      const first = asset('first', { execute: () => (count += 1) })
      const second = asset('second', {
        dependsOn: [first],
        retry: { maxAttempts: 1 },
        execute: (ctx, deps) => {
          if (failing.has(ctx.partition ?? '')) throw new Error('it is broken')
          return deps.first
        },
      })
      await using stage = await openStage(server.url, pipeline('shop', [first, second]), { sealAfter: '1s' })
      const { flow, namespace } = stage
      let { engine } = stage
      const newest = new Map<string, number>()
      let there: string[] = []
      const sealed = async (): Promise<boolean> => {
        const filter = `${namespace}.log.0.run.*.requested`
        const { state } = await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter: filter })
        return Object.keys(state.subjects ?? {}).length === 0
      }
      const expectModel = async (): Promise<void> => {
        expect((await flow.runs({ limit: 100 })).map(({ id }) => id).toSorted()).toEqual(there.toSorted())
        for (const partition of PARTITIONS)
          for (const name of ['first', 'second'] as const)
            expect((await flow.value(`shop/${name}`, { partition }))?.value).toBe(newest.get(`${name} ${partition}`))
        const { findings, notes } = await flow.verify()
        expect([findings, notes]).toEqual([[], []])
      }
      for (const { made, prunes, rebuilds } of rounds) {
        for (const { partition, fails, takes } of made) {
          if (fails) failing.add(partition)
          else failing.delete(partition)
          const before = newest.get(`first ${partition}`)
          // The asset that is asked for is made anew, unless its value is there.
          const upstream = takes ? 'missing' : 'all'
          const run = await flow.materialize(second, { partition, upstream })
          there.push(run.id)
          const known = takes ? before : undefined
          const value = known ?? count + 1
          newest.set(`first ${partition}`, value)
          if (fails) await rejection(run.result())
          else {
            expect(await run.result()).toBe(value)
            newest.set(`second ${partition}`, value)
          }
        }
        await until('all are sealed', sealed)
        if (prunes) {
          await flow.retention.prune({ olderThan: '1ms' })
          there = []
        }
        await expectModel()
        if (!rebuilds) continue
        await engine?.stop()
        await until(
          'the claim is free',
          async () =>
            await flow.rebuild().then(
              () => true,
              () => false,
            ),
        )
        engine = await flow.engine({ sealAfter: '1s' })
        await engine.active
        await expectModel()
      }
    }),
    { ...runs(2), interruptAfterTimeLimit: 60_000, examples: [[[LINEAGE]]] },
  )
  await nc.close()
})
