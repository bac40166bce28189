import { describe, expect, it } from 'vitest'
import { LastLines } from '../../src/client/last-lines.ts'

describe('the last lines of a run that has ended', () => {
  it('are waited for until none has come for two seconds', () => {
    const last = new LastLines(0, 50)
    expect([last.leftMs(0), last.leftMs(1500), last.leftMs(2000)]).toEqual([2000, 500, 0])
    last.came(1900)
    expect([last.leftMs(2000), last.leftMs(3900)]).toEqual([1900, 0])
  })

  it('are waited for no longer than twenty seconds after its end, whatever comes', () => {
    const last = new LastLines(0, 5000)
    last.came(14_000)
    expect([last.leftMs(14_000), last.leftMs(15_000)]).toEqual([1000, 0])
    last.came(16_000)
    expect(last.leftMs(16_000)).toBe(0)
  })

  it('are there at once when it ended long ago', () => {
    expect(new LastLines(0, 60_000).leftMs(0)).toBe(0)
  })
})
