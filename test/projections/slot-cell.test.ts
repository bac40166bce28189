import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  decodeSlotCell,
  emptySlots,
  encodeSlotCell,
  heldWeight,
  lookAgainMs,
  queueUp,
  readiedSlots,
  releaseSlot,
  renewSlot,
  type SlotCell,
  settledSlots,
  type Take,
  takeSlots,
  waitingFor,
} from '../../projections/limits/slot-cell.ts'
import { encodeMsgpack } from '../../streams/codec.ts'
import { runs } from '../kit/runs.ts'

const PLAYED = runs(300)
const START_MS = 1_790_000_000_000
const LEASE_MS = 1000

/**
 * The server with its clock, and a plain list of who holds what, as the holders themselves report.
 */
class World {
  nowMs = START_MS
  seq = 0
  #stored: { payload: Uint8Array; atMs: number; seq: number } | undefined
  readonly held = new Map<string, { weight: number; untilMs: number; fence: number }>()
  readonly fences: number[] = []

  read(): SlotCell {
    if (!this.#stored) return emptySlots()
    const cell = decodeSlotCell(this.#stored.payload)
    if (!cell) throw new Error('no cell')
    return settledSlots(cell, this.#stored.atMs, this.#stored.seq)
  }

  /**
   * An update by a process whose lower bound of the server's time is behind; undefined: nothing to
   * be written.
   */
  update(lagMs: number, change: (cell: SlotCell, nowMs: number) => boolean, onTheWayMs = 0): boolean {
    const before = this.read()
    const cell = { ...before }
    const boundMs = this.nowMs - lagMs
    if (!change(cell, boundMs)) return false
    const sentMs = this.nowMs
    this.nowMs += onTheWayMs
    this.seq += 1
    this.#stored = {
      payload: encodeSlotCell(readiedSlots(cell, before, boundMs, `w-${this.seq}`)),
      atMs: this.nowMs,
      seq: this.seq,
    }
    // What a holder goes by: from before its message was sent.
    for (const { id, weight, atMs, fence } of this.read().holders) {
      if (cell.holders.find((holder) => holder.id === id)?.atMs !== 0) continue
      if (!this.held.has(id)) this.fences.push(fence)
      expect(atMs).toBe(this.nowMs)
      this.held.set(id, { weight, fence, untilMs: sentMs + LEASE_MS })
    }
    return true
  }

  take(id: string, process: string, weight: number, max: number, lagMs = 0, onTheWayMs = 0): boolean {
    const take: Take = { id, process, weight, max, leaseMs: LEASE_MS }
    return this.update(lagMs, (cell, nowMs) => takeSlots(cell, take, nowMs), onTheWayMs)
  }

  wait(process: string, weight = 1, max = 1, waiting = 1): boolean {
    return this.update(0, (cell, nowMs) => queueUp(cell, process, { weight, max, waiting, by: [] }, nowMs))
  }

  release(id: string): boolean {
    this.held.delete(id)
    return this.update(0, (cell) => releaseSlot(cell, id))
  }

  /** By weight, what holders believe they hold. */
  get believed(): number {
    let sum = 0
    for (const { weight, untilMs } of this.held.values()) if (untilMs > this.nowMs) sum += weight
    return sum
  }
}

const step = fc.record({
  what: fc.constantFrom('take', 'take', 'take', 'release', 'renew', 'wait', 'die'),
  process: fc.integer({ min: 0, max: 3 }),
  weight: fc.integer({ min: 1, max: 3 }),
  pick: fc.nat({ max: 50 }),
  lagMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 3000 })),
  onTheWayMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 1500 })),
  pauseMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 700 })),
})

describe('slots', () => {
  it('are never held by more than max at a time, as their holders see it, whoever dies, and however late messages and clocks are', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), fc.array(step, { maxLength: 60, size: 'max' }), (max, steps) => {
        const world = new World()
        let id = 0
        for (const { what, process, weight, pick, lagMs, onTheWayMs, pauseMs } of steps) {
          const ids = [...world.held.keys()]
          const one = ids[pick % Math.max(1, ids.length)] ?? ''
          const mine = world.held.get(one)
          if (what === 'take') world.take(`s${id++}`, `p${process}`, Math.min(weight, max), max, lagMs, onTheWayMs)
          else if (what === 'wait') world.wait(`p${process}`, Math.min(weight, max), max)
          else if (what === 'release') world.release(one)
          else if (what === 'die') world.held.delete(one)
          // Who has lost it does not renew it.
          else if (mine && mine.untilMs > world.nowMs) {
            const renewed = world.update(lagMs, (cell) => renewSlot(cell, one), onTheWayMs)
            if (!renewed) world.held.delete(one)
          }
          expect(world.believed).toBeLessThanOrEqual(max)
          world.nowMs += pauseMs
        }
        expect(world.fences).toEqual(world.fences.toSorted((a, b) => a - b))
        // No two alike.
        expect(new Set(world.fences).size).toBe(world.fences.length)
      }),
      PLAYED,
    )
  })

  it('come back when their holder died, at the end of its lease', () => {
    const world = new World()
    expect(world.take('a', 'p', 1, 1)).toBe(true)
    world.nowMs += LEASE_MS - 1
    expect(world.take('b', 'q', 1, 1)).toBe(false)
    world.nowMs += 1
    expect(world.take('b', 'q', 1, 1)).toBe(true)
    expect(world.update(0, (cell) => renewSlot(cell, 'a'))).toBe(false)
  })

  it('count by weight', () => {
    const world = new World()
    expect(world.take('a', 'p', 3, 4)).toBe(true)
    expect(world.take('b', 'p', 2, 4)).toBe(false)
    expect(world.take('b', 'p', 1, 4)).toBe(true)
    expect(heldWeight(world.read(), world.nowMs)).toBe(4)
  })

  it('shrink with max as holders leave', () => {
    const world = new World()
    for (const id of ['a', 'b', 'c', 'd']) world.take(id, 'p', 1, 4)
    for (const id of ['a', 'b']) world.release(id)
    expect(world.take('e', 'p', 1, 2)).toBe(false)
    world.release('c')
    expect(world.take('e', 'p', 1, 2)).toBe(true)
    expect(world.read().max).toBe(2)
  })

  it('go to who waits longest', () => {
    const world = new World()
    world.take('a', 'p', 1, 1)
    world.wait('q')
    world.wait('r')
    world.release('a')
    expect(world.take('x', 'p', 1, 1)).toBe(false)
    expect(world.take('x', 'r', 1, 1)).toBe(false)
    expect(world.take('x', 'q', 1, 1)).toBe(true)
    world.release('x')
    expect(world.take('y', 'q', 1, 1)).toBe(false)
    expect(world.take('y', 'r', 1, 1)).toBe(true)
    expect(world.read().queue).toEqual([])
  })

  it('pass over who waits and does not take what is free, and forget it in the end', () => {
    const world = new World()
    world.take('a', 'p', 1, 1)
    world.wait('dead')
    world.wait('q', 1, 1, 7)
    expect(waitingFor(world.read(), world.nowMs)).toBe(8)
    world.nowMs += 200
    world.release('a')
    world.nowMs += 499
    expect(lookAgainMs(world.read(), 'q', 1, world.nowMs)).toBe(world.nowMs + 1)
    expect(world.take('x', 'q', 1, 1)).toBe(false)
    world.nowMs += 1
    expect(world.take('x', 'q', 1, 1)).toBe(true)
    expect(world.read().queue).toEqual([])
    world.wait('dead')
    world.nowMs += 30_000
    expect(world.take('y', 'q', 1, 1)).toBe(true)
  })

  it('do not pass over who needs more than is free yet: small ones would starve it', () => {
    const world = new World()
    for (const id of ['a', 'b', 'c', 'd']) world.take(id, 'p', 1, 4)
    world.wait('large', 4, 4)
    world.release('a')
    world.nowMs += 600
    expect(world.take('small', 'q', 1, 4)).toBe(false)
    for (const id of ['b', 'c', 'd']) world.release(id)
    expect(world.take('large', 'large', 4, 4)).toBe(true)
  })

  it('pass over nobody for room that renewals of others were written beside', () => {
    const world = new World()
    for (const id of ['a', 'b']) world.take(id, 'p', 1, 2)
    world.wait('dead', 1, 2)
    world.wait('q', 1, 2)
    world.release('a')
    for (let i = 0; i < 5; i++) {
      world.nowMs += 100
      world.update(0, (cell) => renewSlot(cell, 'b'))
    }
    expect(world.take('x', 'q', 1, 2)).toBe(true)
  })

  it('have fences of their own, also when several are taken by one message', () => {
    const world = new World()
    const take = (id: string): Take => ({ id, process: 'p', weight: 1, max: 3, leaseMs: LEASE_MS })
    world.update(0, (cell, nowMs) => takeSlots(cell, take('a'), nowMs) && takeSlots(cell, take('b'), nowMs))
    world.take('c', 'q', 1, 3)
    expect(world.fences).toEqual([10_000, 10_001, 20_000])
  })

  it('are taken once, also when the answer got lost and the taker asks again', () => {
    const world = new World()
    expect(world.take('a', 'p', 1, 2)).toBe(true)
    const { fence } = world.read().holders[0] ?? { fence: 0 }
    world.take('b', 'q', 1, 2)
    expect(world.take('a', 'p', 1, 2)).toBe(true)
    expect(world.read().holders.map(({ id }) => id)).toEqual(['a', 'b'])
    expect(world.read().holders[0]?.fence).toBe(fence)
  })

  it('say of the first processes that wait what for, in a form that older processes read', () => {
    const cell = emptySlots()
    const wish = { weight: 1, max: 1, waiting: 2 }
    for (let n = 0; n < 20; n++) queueUp(cell, `p${n}`, { ...wish, by: [`run.asset.${n}`, 'b'] }, 1000)
    const read = decodeSlotCell(encodeSlotCell(cell))
    expect(read?.queue.map(({ by }) => by.length)).toEqual([...Array(16).fill(2), 0, 0, 0, 0])
    expect(read?.queue[1]).toEqual({ process: 'p1', ...wish, atMs: 0, by: ['run.asset.1', 'b'] })
    expect(queueUp(cell, 'p1', { ...wish, by: ['other'] }, 1000)).toBe(false)
    // As a process before this wrote it.
    const older = encodeMsgpack([1, 1, -1, '', [], [['p', 1, 1, 2, 5]]])
    expect(decodeSlotCell(older)?.queue).toEqual([{ process: 'p', ...wish, atMs: 5, by: [] }])
  })
})
