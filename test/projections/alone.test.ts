import { describe, expect, it } from 'vitest'
import type { Task } from '../../streams/tasks.ts'
import {
  barrierOf,
  errored,
  leasesOn,
  outcomes,
  plainScatter,
  registered,
  requested,
  type Sim,
  Sim as Simulation,
  scattered,
  spec,
  split,
} from './harness.ts'

const retry = (maxAttempts: number) => ({ maxAttempts, backoffMinMs: 0, backoffMaxMs: 0 })

/**
 * A scatter of one instance that was leased, and what became of its leases one after the other;
 * what is leased now, as `attempt/ordinal`.
 */
function fated(maxAttempts: number, ...fates: ('lost' | 'returned' | 'error')[]): { sim: Sim; leased: string } {
  const sim = scattered([1], {
    retry: retry(maxAttempts),
    scatter: { ...plainScatter, failureMode: 'partial', threshold: { fraction: 1 } },
  })
  for (const [k, fate] of fates.entries()) {
    const lease = `0-1-${k + 1}`
    sim.apply(fate === 'error' ? outcomes(lease, [[0, 'now']]) : split(lease, fate))
    for (const [id, { task }] of sim.work) if (task.kind === 'lease' && task.lease === lease) sim.work.delete(id)
  }
  const leased = leasesOn(sim).map(({ attempt, ordinal, alone }) => `${attempt}/${ordinal}${alone ? ' alone' : ''}`)
  return { sim, leased: leased.join() }
}

describe('an instance whose worker died', () => {
  it.each([
    [3, ['lost'], '2/2'],
    [3, ['lost', 'lost'], '3/3 alone'],
    [3, ['lost', 'error'], '3/3 alone'],
    [3, ['error', 'lost'], '3/3 alone'],
    [3, ['lost', 'lost', 'returned'], '3/4 alone'],
    [2, ['lost'], '2/2 alone'],
    [3, ['error', 'error'], '3/3'],
  ] as const)('of %d attempts, after %j, is leased as %s', (maxAttempts, fates, leased) => {
    expect(fated(maxAttempts, ...fates).leased).toBe(leased)
  })

  it.each([
    [1, ['lost']],
    [2, ['lost', 'lost']],
    [3, ['lost', 'lost', 'lost']],
    [3, ['lost', 'error', 'error']],
    [3, ['error', 'lost', 'lost']],
  ] as const)('of %d attempts has failed after %j', (maxAttempts, fates) => {
    const { sim, leased } = fated(maxAttempts, ...fates)
    expect(leased).toBe('')
    expect(barrierOf(sim)).toMatchObject({ status: 'partial_failure', failed: 1 })
  })

  it('beside others in its last attempt is run once more, alone: nobody knows who was to blame', () => {
    expect(fated(3, 'error', 'error', 'lost').leased).toBe('3/4 alone')
    expect(barrierOf(fated(3, 'error', 'error', 'lost', 'lost').sim).failed).toBe(1)
  })

  it('in a lease of many brings the others along, each with its last attempt alone', () => {
    const sim = scattered([8], { retry: retry(2) })
    sim.apply(split('0-8-1', 'lost'))
    const alone = leasesOn(sim).filter((task) => task.ordinal === 2)
    expect(alone.map(({ from, alone }) => [from, alone])).toEqual(Array.from({ length: 8 }, (_, i) => [i, true]))
  })

  it('with strategy batch runs its last attempt alone, when the first pass is over', () => {
    const sim = scattered([1], { retry: retry(3), scatter: { ...plainScatter, strategy: 'batch' } })
    sim.apply(split('0-1-1', 'lost'))
    sim.apply(outcomes('0-1-2', [[0, 'error']]))
    expect(leasesOn(sim).find(({ ordinal }) => ordinal === 3)?.alone).toBe(true)
  })
})

describe('an asset whose worker died', () => {
  function attempts(maxAttempts: number, ...fates: ('lost' | 'error' | 'returned')[]): Task | undefined {
    const sim = new Simulation()
    sim.apply(registered([spec('a', { retry: retry(maxAttempts) })]))
    sim.apply(requested('a'))
    for (const [k, outcome] of fates.entries()) sim.apply(errored('a', k + 1, { outcome }))
    return sim.work.get([...sim.work.keys()].find((id) => id.endsWith(`.${fates.length + 1}`)) ?? '')?.task
  }

  it('runs its last attempt alone', () => {
    expect(attempts(3, 'lost')?.alone).toBeUndefined()
    expect(attempts(3, 'lost', 'error')?.alone).toBe(true)
    expect(attempts(2, 'lost')?.alone).toBe(true)
    expect(attempts(3, 'error', 'error')?.alone).toBeUndefined()
  })

  it('has failed when it died again alone, and is run once more when it was beside others', () => {
    expect(attempts(2, 'lost', 'lost')).toBeUndefined()
    expect(attempts(1, 'lost')).toBeUndefined()
    expect(attempts(2, 'error', 'lost')?.alone).toBe(true)
    expect(attempts(2, 'error', 'lost', 'lost')).toBeUndefined()
  })
})
