/**
 * Takes tokens, or slots, of some buckets over and over, and writes down when, by a clock that all
 * processes of the host share.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { connect, type RateOption, type Slot } from '../../../src/index.ts'
import { ServerClock } from '../../../src/log/clock.ts'
import { hostMs } from '../../kit/host-clock.ts'
import { type Settings, tell } from './child.ts'
import type { LimitsWork } from './limits-work.ts'

/**
 * A grant that is later than its time by more than this did not end the wait that was announced:
 * the process had asked once more.
 */
const LATE_MS = 15

/**
 * How vague the clock was that the last wait was computed with. After a restart, on a busy machine,
 * it may be tens of milliseconds. `readMs` is when that clock was read, at the earliest. On a busy
 * machine the process may wait for a processor between reading the clock and reporting the wait.
 * Then the time of the report is too late for the lower bound.
 */
let vagueMs = 0
let readMs = 0
const atLeast = ServerClock.prototype.atLeast
ServerClock.prototype.atLeast = function () {
  readMs = now()
  const least = atLeast.call(this)
  vagueMs = this.atMost() - least
  return least
}

const { url, namespace, work } = JSON.parse(process.argv.at(-1) ?? '{}') as Settings & {
  work: LimitsWork | readonly LimitsWork[]
}
const works = [work].flat()
const realNow = Date.now.bind(Date)
Date.now = () => realNow() + (works[0]?.skewMs ?? 0)
const now = hostMs

const flow = await connect({ servers: url, namespace })
process.on('SIGTERM', () => process.exit(0))
process.stdin.resume().on('end', () => process.exit(1))
tell('ready')

async function take({ bucket }: LimitsWork, rate: RateOption): Promise<void> {
  let fromMs = now()
  let dueMs: number | undefined
  await flow.limiter.take(bucket, rate, {
    maxWait: '30s',
    onWait: (waitMs) => {
      dueMs = now() + waitMs
      fromMs = readMs + waitMs - vagueMs
    },
  })
  const toldMs = now()
  // Later than its time by more than is let pass: it was asked for once more, and there is no
  // telling when.
  const late = dueMs === undefined || toldMs > dueMs + LATE_MS
  tell('grant', { bucket, fromMs, toMs: late ? toldMs : dueMs, toldMs, n: 1 })
}

async function check({ bucket }: LimitsWork, rate: RateOption): Promise<void> {
  const fromMs = now()
  const answer = await flow.limiter.check(bucket, rate, { maxWait: '30s' })
  const toMs = now()
  if (answer.allowed) tell('grant', { bucket, fromMs, toMs, toldMs: toMs, n: 1 })
  else await sleep(Math.max(1, Math.random() * answer.waitMs))
}

async function hold({ bucket, max = 1, weight = 1, leaseMs = 1000 }: LimitsWork): Promise<void> {
  const askedMs = now()
  const slot: Slot = await flow.limiter.takeSlot(bucket, max, { weight, lease: leaseMs, maxWait: '60s' })
  const toldMs = now()
  tell('taken', { askedMs, toldMs, fence: slot.fence })
  const untilMs = toldMs + 50 + Math.random() * 100
  const use = { fence: slot.fence, weight, fromMs: toldMs, toMs: toldMs }
  // As code that is fenced does it: it acts only while it holds what it acts on.
  for (;;) {
    const atMs = now()
    if (!slot.isHeld) break
    use.toMs = atMs
    tell('use', use)
    if (atMs > untilMs) break
    await sleep(5)
  }
  await slot.release()
}

async function loop(work: LimitsWork): Promise<void> {
  for (;;) {
    try {
      if (work.kind === 'slots') await hold(work)
      else if (work.kind === 'take') await take(work, work.rate ?? [1, 'second'])
      else await check(work, work.rate ?? [1, 'second'])
    } catch (error) {
      tell('failed', { message: String(error) })
      await sleep(20)
    }
  }
}

await Promise.all(works.flatMap((work) => Array.from({ length: work.callers }, () => loop(work))))
