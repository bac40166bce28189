import { afterEach, expect, it, vi } from 'vitest'
import { untilFoldedTo } from '../../src/engine/shard/until-folded.ts'
import type { Connection } from '../../src/log/connection.ts'
import { encodeJson } from '../../streams/codec.ts'
import { namesOf } from '../../streams/subjects.ts'

afterEach(() => void vi.useRealTimers())

it('who found no engine a moment ago looks once, and waits again for one that is there', async () => {
  vi.useFakeTimers()
  const names = namesOf('ns')
  const claim = { payload: encodeJson({ engine: 'e' }), headers: new Map([['Nats-TTL', '2s']]) }
  let holder: typeof claim | undefined
  let looks = 0
  // In turn: the position, whether the log has more, and who has the claim.
  const answers = [(): unknown => undefined, (): unknown => true, (): unknown => holder]
  const connection = { read: async () => answers[looks++ % 3]?.() } as unknown as Connection
  const look = async (): Promise<number> => {
    looks = 0
    const waits = untilFoldedTo({ connection, names }, 0, 5)
    let isOver = false
    void waits.then(() => {
      isOver = true
    })
    while (!isOver) await vi.advanceTimersByTimeAsync(10)
    expect(await waits).toBe(false)
    return looks / 3
  }
  expect(await look()).toBeGreaterThan(10)
  expect(await look()).toBe(1)
  holder = claim
  expect(await look()).toBeGreaterThan(100)
})
