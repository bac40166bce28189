import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import type { ServerClock } from '../../src/log/clock.ts'
import type { Connection } from '../../src/log/connection.ts'
import type { LogScope } from '../../src/logs/buffer.ts'
import { LogSink } from '../../src/logs/sink.ts'
import { newLine } from '../../streams/log-columns.ts'
import { namesOf } from '../../streams/subjects.ts'
import { listeningLogger } from '../kit/stage.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const scopeOf = (run: string): LogScope => ({
  subjects: [`ns.logs.p.${run}.a.low`, `ns.logs.p.${run}.a.high`],
  source: { pipeline: 'p', worker: 'w', partition: undefined },
  dropped: () => newLine(),
})

/** A sink whose groups are stored at once, and the times at which they left. */
function started() {
  const startedMs = performance.now()
  const left: number[] = []
  const connection = {
    ...{ maxPayload: 1_000_000, isClosed: false },
    untilDisconnect: async () => {
      left.push(Math.round(performance.now() - startedMs))
      return [{ seq: 1 }]
    },
  } as unknown as Connection
  const clock = { now: () => Date.now() } as unknown as ServerClock
  const maxPerSecond = Number.POSITIVE_INFINITY
  const sink = new LogSink({ connection, names: namesOf('ns'), clock, logger: listeningLogger(), maxPerSecond })
  const log = (run: string, level = 1): void => sink.add(scopeOf(run), { ...newLine(), message: 'a', level })
  return { sink, left, log }
}

it('a line of a log leaves 100 ms after it, and soon after a warning or the end of a task', async () => {
  const { sink, left, log } = started()
  log('1')
  await vi.advanceTimersByTimeAsync(1000)
  log('1', 2)
  await vi.advanceTimersByTimeAsync(1000)
  log('1')
  sink.soon()
  await vi.advanceTimersByTimeAsync(1000)
  expect(left).toEqual([100, 1015, 2015])
})

it('groups of few lines of a log leave 100 ms apart, however many tasks end', async () => {
  const { sink, left, log } = started()
  for (let i = 0; i < 40; i++) {
    log('1', 2)
    sink.soon()
    await vi.advanceTimersByTimeAsync(10)
  }
  expect(left).toEqual([15, 115, 215, 315])
})

it('groups of many lines of a log, or of many runs, leave half a second apart', async () => {
  const runs = started()
  for (let i = 0; i < 400; i++) {
    runs.log(`${i}`)
    runs.sink.soon()
    await vi.advanceTimersByTimeAsync(5)
  }
  expect(runs.left).toEqual([15, 115, 615, 1115, 1615])

  const lines = started()
  for (let i = 0; i < 1000; i++) {
    for (let k = 0; k < 5; k++) lines.log('1')
    await vi.advanceTimersByTimeAsync(2)
  }
  expect(lines.left).toEqual([100, 600, 1100, 1600])
})

it('lines of a log that fill a group leave at once', async () => {
  const { sink, left } = started()
  for (let i = 0; i < 200; i++) {
    sink.add(scopeOf('1'), { ...newLine(), message: `${i}`.padEnd(8000, 'a'), level: 1 })
    if (i % 50 === 49) await vi.advanceTimersByTimeAsync(20)
  }
  expect(left.slice(0, 4)).toEqual([0, 20, 40, 60])
})
