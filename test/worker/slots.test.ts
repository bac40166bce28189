import { describe, expect, it } from 'vitest'
import { Seat, Slots } from '../../src/worker/pull/slots.ts'

/** What a promise has come to once all that is due now has run. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false
  void promise.then(() => {
    settled = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  return settled
}

describe('slots', () => {
  it('go to who waits, first come, first served, and are not overtaken', async () => {
    const slots = new Slots(1)
    expect(slots.tryTake()).toBe(true)
    const [first, second] = [slots.turn(), slots.turn()]
    slots.give()
    expect(await first.granted).toBe(true)
    expect(slots.tryTake()).toBe(false)
    expect(await isSettled(second.granted)).toBe(false)
    second.cancelWait()
    expect(await second.granted).toBe(false)
    slots.give()
    expect(slots.free).toBe(1)
  })

  it('grow by one that goes to who waits', async () => {
    const slots = new Slots(0)
    const turn = slots.turn()
    slots.grow()
    expect(await turn.granted).toBe(true)
    expect([slots.size, slots.free]).toEqual([1, 0])
  })

  it('shrink at once for newcomers, and for who asked only when no more are in use than are left', async () => {
    const slots = new Slots(3)
    for (let i = 0; i < 3; i++) expect(slots.tryTake()).toBe(true)
    const turn = slots.turn()
    const [first, second] = [slots.shrink(), slots.shrink()]
    expect(await isSettled(first)).toBe(false)
    slots.give()
    expect([await isSettled(first), await isSettled(second)]).toEqual([true, false])
    slots.give()
    expect([await isSettled(second), await isSettled(turn.granted)]).toEqual([true, false])
    slots.give()
    expect(await turn.granted).toBe(true)
    expect([slots.size, slots.free]).toEqual([1, 0])
  })

  it('grow by one that somebody can take while one that was given up is still in use', async () => {
    const slots = new Slots(2)
    for (let i = 0; i < 2; i++) slots.tryTake()
    const retired = slots.shrink()
    slots.grow()
    expect(await isSettled(retired)).toBe(false)
    expect(slots.tryTake()).toBe(true)
    expect(slots.tryTake()).toBe(false)
    slots.give()
    expect(await isSettled(retired)).toBe(true)
    expect([slots.size, slots.free]).toEqual([2, 0])
  })

  it('shrink at once where one is free', async () => {
    const slots = new Slots(2)
    slots.tryTake()
    expect(await isSettled(slots.shrink())).toBe(true)
    expect([slots.size, slots.free]).toEqual([1, 0])
  })

  it('of a task go to others while its outcome is stored, and are given back once', async () => {
    const slots = new Slots(1)
    const [one, other] = [new Seat(slots), new Seat(slots)]
    await one.take()
    const waits = other.take()
    expect(await isSettled(waits)).toBe(false)
    one.give()
    one.give()
    await waits
    expect(slots.free).toBe(0)
    const again = one.take()
    expect(await isSettled(again)).toBe(false)
    other.give()
    await again
    one.give()
    expect(slots.free).toBe(1)
  })
})
