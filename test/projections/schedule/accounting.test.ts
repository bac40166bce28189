import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { CronTiming, ScheduleSpec, ScheduleTiming } from '../../../streams/schedule-schemas.ts'
import { runs } from '../../kit/runs.ts'
import { START_MS } from '../harness.ts'
import { Clocked, HOUR_MS, scheduleSpec, within } from './kit.ts'

const YEAR_MS = 365 * 24 * HOUR_MS
const DAY_MS = 24 * HOUR_MS

const cron: CronTiming = { cron: '30 2,14 * * *', timeZone: 'Europe/Zurich', dst: { gap: 'after', overlap: 'both' } }
const timings: readonly ScheduleTiming[] = [cron, { everyMs: 11 * HOUR_MS, anchorMs: 5 }]

/** What happens, one after the other, each so long after the one before. */
const event = fc.record({
  afterMs: fc.integer({ min: 1, max: 12 * DAY_MS }),
  what: fc.constantFrom('look', 'look', 'look', 'pause', 'resume', 'change', 'finish', 'crash'),
})

it('every occurrence of a year is fired, skipped or missed, once, whatever the downtimes, pauses, changes and crashes', () => {
  fc.assert(
    fc.property(
      fc.array(event, { minLength: 20, maxLength: 120 }),
      fc.constantFrom<ScheduleSpec['overlap']>('skip', 'queue', 'cancel_running', 'allow'),
      fc.constantFrom<ScheduleSpec['catchUp']>('none', 'last', 'all', { withinMs: 2 * DAY_MS }),
      fc.constantFrom(0, 20 * 60_000),
      (events, overlap, catchUp, jitterMs) => {
        const one = new Clocked()
        const spec = (i: number) => scheduleSpec({ timing: timings[i % 2] ?? cron, overlap, catchUp, jitterMs })
        let changes = 0
        one.define([spec(0)], START_MS)
        const expected: number[] = []
        let [sinceMs, nowMs] = [START_MS, START_MS]
        const endTiming = () => {
          expected.push(...within(timings[changes % 2] ?? cron, sinceMs + 1, nowMs))
          sinceMs = nowMs
        }
        for (const { afterMs, what } of events) {
          if (nowMs + afterMs > START_MS + YEAR_MS) break
          nowMs += afterMs
          if (what === 'look') one.look(nowMs)
          else if (what === 'pause') one.say('schedule.paused', nowMs)
          else if (what === 'resume') one.say('schedule.resumed', nowMs)
          else if (what === 'crash') {
            one.sim.crash(afterMs % 3, false)
            one.sim.settle()
          } else if (what === 'finish') {
            const [open] = Object.values(one.state.open)
            if (open && !one.sim.facts('run.finished').some(({ ids }) => ids.run === open.run))
              one.finish(open.run, nowMs)
          } else {
            endTiming()
            changes += 1
            one.define([spec(changes)], nowMs)
          }
          if (afterMs % 2 === 0) one.sim.checkpoint()
        }
        // The year ends: all is resumed, and what is open has ended.
        nowMs = START_MS + YEAR_MS
        one.say('schedule.resumed', nowMs)
        one.look(nowMs)
        endTiming()
        for (let open = Object.values(one.state.open); open.length > 0; open = Object.values(one.state.open))
          for (const { run } of open) one.finish(run, nowMs)
        const undue = expected.filter((ms) => ms + jitterMs > nowMs)
        const decided = one.decided(timings).map(({ atMs }) => atMs)
        expect(decided).toEqual([...new Set(decided)])
        expect(decided.filter((ms) => !undue.includes(ms))).toEqual(expected.filter((ms) => !undue.includes(ms)))
        const requests = one.sim.facts('run.requested').map(({ data }) => data.schedule?.occurrence)
        expect(requests.toSorted()).toEqual(
          one.sim
            .facts('schedule.fired')
            .map(({ ids }) => ids.occurrence)
            .toSorted(),
        )
      },
    ),
    runs(40),
  )
})
