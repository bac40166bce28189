import { describe, expect, it } from 'vitest'
import {
  jitterOf,
  nextOccurrence,
  occurrencesAfter,
  someOccurrences,
} from '../../../projections/schedule/occurrences.ts'
import type { CronTiming } from '../../../streams/schedule-schemas.ts'

function timing(cron: string, timeZone: string, dst: Partial<CronTiming['dst']> = {}): CronTiming {
  return { cron, timeZone, dst: { gap: 'after', overlap: 'first', ...dst } }
}

function momentsAfter(of: Parameters<typeof someOccurrences>[0], from: string, count: number): string[] {
  return someOccurrences(of, Date.parse(from), count).map((ms) => new Date(ms).toISOString().replace('.000Z', 'Z'))
}

describe('occurrences', () => {
  it('of a cron are strictly after the moment, in the zone, also across years and leap days', () => {
    expect(momentsAfter(timing('0 2 * * *', 'Europe/Zurich'), '2026-11-28T01:00:00Z', 2)).toEqual([
      '2026-11-29T01:00:00Z',
      '2026-11-30T01:00:00Z',
    ])
    expect(momentsAfter(timing('0 0 29 2 *', 'UTC'), '2025-01-01T00:00:00Z', 2)).toEqual([
      '2028-02-29T00:00:00Z',
      '2032-02-29T00:00:00Z',
    ])
    expect(momentsAfter(timing('59 23 31 12 *', 'Asia/Kolkata'), '2026-01-01T00:00:00Z', 1)).toEqual([
      '2026-12-31T18:29:00Z',
    ])
    expect(momentsAfter(timing('*/30 * * * * *', 'UTC'), '2026-01-01T00:00:00.001Z', 2)).toEqual([
      '2026-01-01T00:00:30Z',
      '2026-01-01T00:01:00Z',
    ])
  })

  it('of a cron end where nothing more comes', () => {
    expect(nextOccurrence(timing('0 0 30 2 *', 'UTC'), 0)).toBeUndefined()
  })

  it.each([
    // Clocks are set forward: by half an hour on Lord Howe, at midnight in São Paulo.
    ['Europe/Zurich', '30 2 * * *', '2026-03-28T12:00:00Z', '2026-03-29T01:00:00Z', '2026-03-30T00:30:00Z'],
    ['America/New_York', '30 2 * * *', '2026-03-07T12:00:00Z', '2026-03-08T07:00:00Z', '2026-03-09T06:30:00Z'],
    ['Australia/Lord_Howe', '15 2 * * *', '2026-10-03T00:00:00Z', '2026-10-03T15:30:00Z', '2026-10-04T15:15:00Z'],
    ['America/Sao_Paulo', '0 0 * * *', '2018-11-03T12:00:00Z', '2018-11-04T03:00:00Z', '2018-11-05T02:00:00Z'],
  ])(
    'in %s, a time that does not exist comes when clocks are set forward, or is skipped',
    (zone, cron, from, gap, next) => {
      expect(momentsAfter(timing(cron, zone, { gap: 'after' }), from, 2)).toEqual([gap, next])
      expect(momentsAfter(timing(cron, zone, { gap: 'skip' }), from, 1)).toEqual([next])
      // Asked from the moment itself: not again.
      expect(momentsAfter(timing(cron, zone), gap, 1)).toEqual([next])
    },
  )

  it.each([
    [
      'Europe/Zurich',
      '30 2 * * *',
      '2026-10-24T12:00:00Z',
      '2026-10-25T00:30:00Z',
      '2026-10-25T01:30:00Z',
      '2026-10-26T01:30:00Z',
    ],
    [
      'America/New_York',
      '30 1 * * *',
      '2026-10-31T12:00:00Z',
      '2026-11-01T05:30:00Z',
      '2026-11-01T06:30:00Z',
      '2026-11-02T06:30:00Z',
    ],
    [
      'Australia/Lord_Howe',
      '45 1 * * *',
      '2026-04-04T00:00:00Z',
      '2026-04-04T14:45:00Z',
      '2026-04-04T15:15:00Z',
      '2026-04-05T15:15:00Z',
    ],
    [
      'America/Sao_Paulo',
      '30 23 * * *',
      '2019-02-16T12:00:00Z',
      '2019-02-17T01:30:00Z',
      '2019-02-17T02:30:00Z',
      '2019-02-18T02:30:00Z',
    ],
  ])('in %s, a time that exists twice comes the first time, or both times', (zone, cron, from, first, second, next) => {
    expect(momentsAfter(timing(cron, zone, { overlap: 'first' }), from, 2)).toEqual([first, next])
    expect(momentsAfter(timing(cron, zone, { overlap: 'both' }), from, 3)).toEqual([first, second, next])
    expect(momentsAfter(timing(cron, zone, { overlap: 'both' }), first, 2)).toEqual([second, next])
    expect(momentsAfter(timing(cron, zone, { overlap: 'first' }), first, 1)).toEqual([next])
  })

  it('of every quarter of an hour come in order through both changes', () => {
    const quarters = timing('*/15 * * * *', 'Europe/Zurich', { overlap: 'both' })
    const autumn = someOccurrences(quarters, Date.parse('2026-10-24T22:00:00Z'), 24)
    expect(autumn).toEqual(autumn.map((_, i) => Date.parse('2026-10-24T22:15:00Z') + i * 900_000))
    const spring = someOccurrences(quarters, Date.parse('2026-03-28T23:00:00Z'), 24)
    expect(spring).toEqual(spring.map((_, i) => Date.parse('2026-03-28T23:15:00Z') + i * 900_000))
    const first = timing('*/15 * * * *', 'Europe/Zurich', { overlap: 'first' })
    expect(momentsAfter(first, '2026-10-25T00:30:00Z', 2)).toEqual(['2026-10-25T00:45:00Z', '2026-10-25T02:00:00Z'])
  })

  it.each(['Europe/Zurich', 'Australia/Lord_Howe', 'America/Sao_Paulo', 'Asia/Kathmandu'])(
    'in %s, asked one by one are those of one go, through three years',
    (zone) => {
      for (const overlap of ['first', 'both'] as const) {
        const of = timing('20,50 0-3 * * 0', zone, { overlap })
        const all: number[] = []
        for (const ms of occurrencesAfter(of, Date.parse('2016-06-01T00:00:00Z'))) {
          if (ms > Date.parse('2019-06-01T00:00:00Z')) break
          all.push(ms)
        }
        expect(all).toEqual([...new Set(all)].toSorted((a, b) => a - b))
        for (let i = 1; i < all.length; i++) expect(nextOccurrence(of, all[i - 1] ?? 0)).toBe(all[i])
        for (const ms of all.slice(0, 50)) expect(nextOccurrence(of, ms - 1)).toBe(ms)
      }
    },
  )

  it('of an interval are counted from its anchor, before it too', () => {
    const of = { everyMs: 900_000, anchorMs: Date.parse('2026-01-01T00:05:00Z') }
    expect(momentsAfter(of, '2026-01-01T00:05:00Z', 2)).toEqual(['2026-01-01T00:20:00Z', '2026-01-01T00:35:00Z'])
    expect(momentsAfter(of, '2025-12-31T23:49:59Z', 2)).toEqual(['2025-12-31T23:50:00Z', '2026-01-01T00:05:00Z'])
  })

  it('have the same jitter each time, within its bound, and spread', () => {
    const jitters = Array.from({ length: 1000 }, (_, i) => jitterOf(300_000, 'p', 's', i * 60_000))
    expect(jitters).toEqual(jitters.map((_, i) => jitterOf(300_000, 'p', 's', i * 60_000)))
    expect(jitters.every((ms) => ms >= 0 && ms < 300_000)).toBe(true)
    expect(jitters.filter((ms) => ms < 150_000).length).toBeGreaterThan(400)
    expect(jitterOf(0, 'p', 's', 1)).toBe(0)
  })
})
