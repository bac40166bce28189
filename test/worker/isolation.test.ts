import { describe, expect, it } from 'vitest'
import { CancelledError } from '../../src/index.ts'
import { type Disposition, DONE, HandBack, NOT_BEGUN } from '../../src/worker/pull/disposition.ts'
import { Isolation } from '../../src/worker/pull/isolation.ts'
import { until } from '../kit/until.ts'

const turns = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await Promise.resolve()
}

/** A piece of work that lasts until `end` is called. */
function work(log: string[], name: string) {
  const { promise, resolve } = Promise.withResolvers<void>()
  const run = async (): Promise<Disposition> => {
    log.push(`${name} begins`)
    await promise
    log.push(`${name} ends`)
    return DONE
  }
  return { run, end: resolve }
}

/** A piece of work that ends at once. */
function note(log: string[], text: string): () => Promise<Disposition> {
  return async () => {
    log.push(text)
    return DONE
  }
}

const never = new AbortController().signal
const lone = () => new Isolation({ limitMs: 60_000, say: () => undefined })

describe('what runs alone in a worker', () => {
  it('waits for all that runs beside, and one runs after the other', async () => {
    const alone = lone()
    const log: string[] = []
    const [a, b, x, y] = ['a', 'b', 'x', 'y'].map((name) => work(log, name))
    const all = [
      alone.beside(() => a?.run() ?? Promise.resolve(DONE)),
      alone.beside(() => b?.run() ?? Promise.resolve(DONE)),
    ]
    expect(alone.isWanted).toBe(false)
    all.push(
      alone.run(never, () => x?.run() ?? Promise.resolve(DONE)),
      alone.run(never, () => y?.run() ?? Promise.resolve(DONE)),
    )
    expect(alone.isWanted).toBe(true)
    a?.end()
    await turns()
    expect(log).toEqual(['a begins', 'b begins', 'a ends'])
    b?.end()
    await turns()
    expect(log.slice(3)).toEqual(['b ends', 'x begins'])
    y?.end()
    x?.end()
    await Promise.all(all)
    expect(log.slice(5)).toEqual(['x ends', 'y begins', 'y ends'])
    expect(alone.isWanted).toBe(false)
  })

  it('lets the next one have its turn when it throws', async () => {
    const alone = lone()
    const log: string[] = []
    const failing = alone.run(never, () => Promise.reject(new Error('broken')))
    const next = alone.run(never, note(log, 'next'))
    await expect(failing).rejects.toThrow('broken')
    expect(await next).toBe(DONE)
    expect(log).toEqual(['next'])
  })

  it('is not begun when its work is ended first, and makes room for others', async () => {
    const alone = lone()
    const log: string[] = []
    const other = work(log, 'other')
    const running = alone.beside(other.run)
    const abort = new AbortController()
    const waiting = alone.run(abort.signal, note(log, 'never'))
    abort.abort(new CancelledError('enough'))
    expect(await waiting).toBe(DONE)
    expect(alone.isWanted).toBe(false)
    expect(await alone.run(abort.signal, note(log, 'never'))).toBe(DONE)
    other.end()
    await running
    expect(log).toEqual(['other begins', 'other ends'])
  })

  it('goes back unbegun when the worker stops first: while it waits, when it comes later, and by the signal', async () => {
    const alone = lone()
    const other = work([], 'other')
    const running = alone.beside(other.run)
    const abort = new AbortController()
    const told = alone.run(abort.signal, () => Promise.reject(new Error('begun')))
    const waiting = alone.run(never, () => Promise.reject(new Error('begun')))
    abort.abort(new HandBack())
    expect(await told).toBe(NOT_BEGUN)
    alone.giveUp()
    expect(await waiting).toBe(NOT_BEGUN)
    expect(await alone.run(never, () => Promise.reject(new Error('begun')))).toBe(NOT_BEGUN)
    other.end()
    await running
    expect(alone.isWanted).toBe(false)
  })

  it('runs beside what hangs once the limit has passed, and others are begun beside it when it hangs itself', async () => {
    const said: string[] = []
    const alone = new Isolation({ limitMs: 40, say: (what) => said.push(what) })
    const log: string[] = []
    const [hung, first, second] = ['hung', 'first', 'second'].map((name) => work(log, name))
    void alone.beside(() => hung?.run() ?? Promise.resolve(DONE))
    void alone.run(never, () => first?.run() ?? Promise.resolve(DONE))
    void alone.run(never, () => second?.run() ?? Promise.resolve(DONE))
    await until('the first runs', () => log.includes('first begins'))
    expect(said).toEqual(['soon', 'late'])
    expect(alone.isWanted).toBe(true)
    // The first hangs too, and what hung before is waited for no more.
    await until('the second runs', () => log.includes('second begins'))
    expect(said).toEqual(['soon', 'late', 'long'])
    await until('others may begin', () => !alone.isWanted)
  })
})
