import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CHAIN_MAX, carrierOf } from '../../projections/run/chain.ts'
import type { AssetSpec } from '../../streams/schemas.ts'
import type { AttemptTask } from '../../streams/tasks.ts'
import { runs } from '../kit/runs.ts'
import { cancel, errored, materialized, RUN, registered, requested, Sim, spec } from './harness.ts'

function begun(assets: AssetSpec[]): Sim {
  const sim = new Sim()
  sim.apply(registered(assets))
  sim.apply(requested(assets.at(-1)?.name ?? ''))
  return sim
}

const row = (length: number, options: Partial<AssetSpec> = {}): AssetSpec[] =>
  Array.from({ length }, (_, i) => spec(`a${i}`, { ...options, dependsOn: i === 0 ? [] : [`a${i - 1}`] }))

/** Each task on WORK as the assets it brings. */
const tasks = (sim: Sim): string[] =>
  [...sim.work.values()].map(({ task }) =>
    [
      `${task.asset}.${task.attempt}`,
      ...stepsOf(task as AttemptTask).map((step) => `${step.asset}.${step.attempt}`),
    ].join(' '),
  )
const stepsOf = ({ chain = [] }: AttemptTask) => chain
const lost = (asset: string, attempt: number) => errored(asset, attempt, { outcome: 'lost' })

describe('a chain', () => {
  it('brings with one task all that follow one another, and the run ends by itself', () => {
    const sim = begun(row(3))
    expect(tasks(sim)).toEqual(['a0.1 a1.1 a2.1'])
    sim.apply(materialized('a0'))
    expect(sim.run(RUN).assets.a1).toMatchObject({ status: 'queued', attempt: 1 })
    sim.apply(materialized('a1'))
    sim.apply(materialized('a2'))
    sim.settle()
    expect(tasks(sim)).toHaveLength(1)
    expect(sim.run(RUN).status).toBe('succeeded')
  })

  it('ends where two become ready together, and where one needs more than the chain makes', () => {
    const sim = begun([
      spec('a'),
      spec('b', { dependsOn: ['a'] }),
      spec('c', { dependsOn: ['a'] }),
      spec('d', { dependsOn: ['b', 'c'] }),
    ])
    expect(tasks(sim)).toEqual(['a.1'])
    sim.apply(materialized('a'))
    expect(tasks(sim)).toEqual(['a.1', 'b.1', 'c.1'])
    sim.apply(materialized('b'))
    sim.apply(materialized('c'))
    expect(tasks(sim)).toEqual(['a.1', 'b.1', 'c.1', 'd.1'])
  })

  it.each<[string, Partial<AssetSpec>]>([
    ['on another queue', { queue: 'other' }],
    ['of another priority', { priority: 0 }],
    ['with limits', { limited: true }],
    ['that is a scatter', { scatter: { retryStrategy: 'individual', failureMode: 'all_or_nothing' } as never }],
  ])('leaves out an asset %s', (_, options) => {
    const sim = begun([spec('a'), spec('b', { dependsOn: ['a'], ...options }), spec('c', { dependsOn: ['b'] })])
    expect(tasks(sim)).toEqual(['a.1'])
  })

  it('does not hold a limit for what follows', () => {
    expect(tasks(begun([spec('a', { limited: true }), spec('b', { dependsOn: ['a'] })]))).toEqual(['a.1'])
  })

  it('is no longer than its task may be', () => {
    const [only = ''] = tasks(begun(row(CHAIN_MAX + 5)))
    expect(only.split(' ')).toHaveLength(CHAIN_MAX + 1)
  })

  it('goes on behind an attempt that failed with the task of its retry', () => {
    const sim = begun(row(3))
    sim.apply(materialized('a0'))
    sim.apply(errored('a1', 1))
    expect(tasks(sim).at(-1)).toBe('a1.2 a2.1')
    expect(carrierOf(sim.run(RUN), 'a2')).toBe(`${RUN}.a1.2`)
  })

  it('lets go of what follows when its worker was given up and brings a value after all', () => {
    const sim = begun(row(3))
    sim.apply(lost('a0', 1))
    expect(tasks(sim).at(-1)).toBe('a0.2 a1.1 a2.1')
    sim.apply(materialized('a0', RUN, 1))
    // The first worker may go on to attempt 1 of a1. Nobody waits for it.
    expect(tasks(sim).at(-1)).toBe('a1.2 a2.2')
  })

  it('that has left WORK is enqueued again from where it stands', () => {
    const sim = begun(row(3))
    sim.apply(materialized('a0'))
    expect(sim.reconcile()).toEqual([])
    sim.work.clear()
    expect(sim.reconcile()).toEqual([`${RUN}.a1.1`])
    sim.apply(materialized('a1'))
    expect(sim.reconcile()).toEqual([`${RUN}.a2.1`])
  })

  it('is over when its run is cancelled', () => {
    const sim = begun(row(3))
    sim.apply(materialized('a0'))
    sim.apply(cancel())
    sim.settle()
    expect(sim.run(RUN).status).toBe('cancelled')
    expect(sim.reconcile()).toEqual([])
  })

  // What a worker does with a task: how many attempts of the chain it does, and how it stops.
  const stop = fc.constantFrom('goes on', 'dies', 'fails', 'hands over', 'loses the message')
  const turns = fc.array(fc.record({ steps: fc.nat(4), stop, pick: fc.nat(9) }), { maxLength: 40 })
  const graph = fc.array(fc.array(fc.nat(7), { maxLength: 3 }), { minLength: 1, maxLength: 8 })

  it('whatever becomes of its workers, every run ends, and nothing has a value twice', () => {
    fc.assert(
      fc.property(graph, turns, (edges, all) => {
        const assets = edges.map((dependsOn, i) =>
          spec(`a${i}`, {
            dependsOn: [...new Set(dependsOn.filter((d) => d < i).map((d) => `a${d}`))],
            retry: { maxAttempts: 100, backoffMinMs: 1, backoffMaxMs: 1 },
          }),
        )
        const sim = begun(assets)
        for (const turn of all) play(sim, turn)
        for (let i = 0; i < 200 && sim.run(RUN).finishedMs === undefined; i++) {
          play(sim, { steps: 99, stop: 'goes on', pick: 0 })
          if (sim.work.size === 0) sim.reconcile()
        }
        expect(sim.run(RUN).status).toBe('succeeded')
        const made = sim.facts('asset.materialized').map(({ ids }) => ids.asset)
        expect(new Set(made).size).toBe(made.length)
        sim.reconcile()
        expect([...sim.work.values()].filter(({ task }) => !hasEnded(sim, task as AttemptTask))).toEqual([])
      }),
      runs(300),
    )
  })
})

interface Turn {
  readonly steps: number
  readonly stop: string
  readonly pick: number
}

/** As src/worker/attempt/chain.ts does it: begins with the first attempt that has no end. */
function play(sim: Sim, { steps, stop, pick }: Turn): void {
  sim.settle()
  const due = sim.due()
  const effect = due[pick % Math.max(1, due.length)]
  if (!effect) return
  const task = effect.task as AttemptTask
  const all = [{ asset: task.asset, attempt: task.attempt }, ...stepsOf(task)]
  const left = all.filter(({ asset }) => !sim.facts('asset.materialized').some(({ ids }) => ids.asset === asset))
  for (const { asset, attempt } of left.slice(0, steps)) sim.append(materialized(asset, RUN, attempt))
  const next = left[steps]
  if (!next || stop === 'goes on') {
    for (const { asset, attempt } of left.slice(steps)) sim.append(materialized(asset, RUN, attempt))
    sim.work.delete(task.id)
  } else if (stop === 'dies') {
    // Another worker gets the message, and finds the first attempt without an end.
    sim.append(lost(next.asset, next.attempt))
    sim.work.delete(task.id)
  } else if (stop === 'fails') {
    sim.append(errored(next.asset, next.attempt))
    sim.work.delete(task.id)
  } else if (stop === 'loses the message') {
    sim.work.delete(task.id)
    sim.reconcile()
  }
  sim.settle()
}

function hasEnded(sim: Sim, task: AttemptTask): boolean {
  return [task, ...stepsOf(task)].every(({ asset }) =>
    sim.facts('asset.materialized').some(({ ids }) => ids.asset === asset),
  )
}
