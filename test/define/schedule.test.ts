import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { asset, InvalidError, input, pipeline, type ScheduleOptions, schedule, sensor } from '../../src/index.ts'

const report = asset('report', { execute: () => 1 })
const order = input('order', z.object({ id: z.string() }))
const invoice = asset('invoice', { dependsOn: [order], execute: () => 1 })

function refusal(declare: () => unknown): string {
  try {
    declare()
  } catch (error) {
    expect(error).toBeInstanceOf(InvalidError)
    return (error as Error).message
  }
  throw new Error('it was not refused')
}

describe('a schedule', () => {
  it('has defaults, and says itself without code', () => {
    const nightly = schedule('nightly', { cron: '0 2 * * *', timeZone: 'Europe/Zurich', run: report })
    expect(nightly.spec).toEqual({
      name: 'nightly',
      target: 'report',
      timing: { cron: '0 2 * * *', timeZone: 'Europe/Zurich', dst: { gap: 'after', overlap: 'first' } },
      overlap: 'skip',
      catchUp: 'last',
      jitterMs: 0,
    })
    expect(nightly.internal).toEqual([])
    const often = schedule('often', {
      every: '15m',
      anchor: '2026-01-01T00:05:00Z',
      run: report,
      catchUp: { within: '6h' },
    })
    expect(often.spec).toMatchObject({
      timing: { everyMs: 900_000, anchorMs: Date.UTC(2026, 0, 1, 0, 5) },
      catchUp: { withinMs: 21_600_000 },
    })
  })

  it.each([
    ['*/15 * * * *', 'both'],
    ['0 */2 * * *', 'both'],
    ['30 0 */2 * * *', 'both'],
    ['@hourly', 'both'],
    ['0 1-3 * * *', 'first'],
    ['30 2 * * 1-5', 'first'],
    ['@daily', 'first'],
  ])('with cron %s runs at a time that exists twice: %s', (cron, overlap) => {
    expect(schedule('s', { cron, run: report }).spec.timing).toMatchObject({ dst: { overlap } })
    const own = schedule('s', { cron, run: report, dst: { overlap: 'first', gap: 'skip' } })
    expect(own.spec.timing).toMatchObject({ dst: { overlap: 'first', gap: 'skip' } })
  })

  it.each<[Record<string, unknown>, RegExp]>([
    [{}, /give it either cron or every/],
    [{ cron: '0 2 * * *', every: '1h' }, /give it either cron or every/],
    [{ cron: '0 25 * * *' }, /cron "0 25 \* \* \*": /],
    [{ cron: '0 2 * *' }, /cron must have 5 fields, or 6/],
    [{ cron: 5 }, /cron must be text/],
    [{ cron: '0 0 30 2 *' }, /names no time that ever comes/],
    [{ cron: '0 2 * * *', timeZone: 'Zurich' }, /timeZone must be one of the IANA database.*"Zurich"/],
    [{ cron: '0 2 * * *', anchor: '2026-01-01' }, /anchor is for every/],
    [{ every: '10ms' }, /every must be at least 1s/],
    [{ every: '1h', timeZone: 'UTC' }, /timeZone is for cron/],
    [{ every: '1h', anchor: 'soon' }, /anchor must be a date/],
    [{ every: '1h', overlap: 'both' }, /overlap must be skip, queue, cancel_running or allow, got "both"/],
    [{ every: '1h', catchUp: 'some' }, /catchUp must be none, last, all or \{ within/],
    [{ every: '1h', catchUp: { within: 'x' } }, /catchUp.within must be/],
    [{ every: '1h', jitter: '1h' }, /jitter must be shorter than the time between two occurrences/],
    [{ cron: '0,1 2 * * *', jitter: '2m' }, /jitter must be shorter/],
    [{ cron: '0 2 * * *', dst: { gap: 'before' } }, /dst.gap must be after or skip/],
    [{ cron: '0 2 * * *', dst: { overlap: 'last' } }, /dst.overlap must be first or both/],
    [{ every: '1h', evry: 1 }, /there is no option evry; did you mean every\?/],
    [{ every: '1h', run: 'report' }, /run must be an asset, got string/],
    [{ every: '1h', run: order }, /order is an input/],
    [{ cron: '@never' }, /cron "@never": there is no such name; one is @daily$/],
    [{ cron: '61 * * * *' }, /cron "61 \* \* \* \*": Invalid value for minute: 61$/],
    [{ every: '1h', partition: 5 }, /partition must be text/],
    [{ every: '1h', tags: { tenant: 5 } }, /tags.tenant: name and value must be texts/],
    [{ every: '1h', input: 5 }, /input must be an object with a value for each input/],
    [{ every: '1h', run: invoice, input: { ordr: 1 } }, /there is no input ordr; did you mean order\?/],
    [{ every: '1h', run: invoice, input: {} }, /input: order is missing, and invoice needs it/],
    [{ every: '1h', run: invoice }, /invoice needs input order: give input/],
  ])('%j is refused with the field', (options, message) => {
    const given = { run: report, ...options } as unknown as ScheduleOptions
    expect(refusal(() => schedule('s', given))).toMatch(message)
    expect(refusal(() => schedule('s', given))).toMatch(/^schedule s/)
  })

  it('with functions brings the code that runs them, which only workers see', () => {
    const daily = schedule('daily', { every: '1d', run: invoice, input: () => ({ order: { id: 'x' } }) })
    const all = pipeline('p', [order, invoice], { schedules: [daily] })
    expect(all.assets.map(({ name }) => name)).toEqual([
      'order',
      'invoice',
      'schedule__daily__given',
      'schedule__daily',
    ])
    expect(all.spec.assets.filter(({ internal }) => internal).map(({ name }) => name)).toHaveLength(2)
    expect(all.spec.schedules).toEqual([{ ...daily.spec, evaluates: 'schedule__daily' }])
    expect(all.spec.version).not.toBe(pipeline('p', [order, invoice]).spec.version)
  })
})

describe('a sensor', () => {
  it.each<[Record<string, unknown>, RegExp]>([
    [{ every: '1s' }, /evaluate must be a function/],
    [{ every: '1ms', evaluate: () => 1 }, /every must be at least 1s/],
    [{ every: '1s', evaluate: () => 1, cron: '' }, /there is no option cron/],
  ])('%j is refused with the field', (options, message) => {
    expect(refusal(() => sensor('s', { run: report, ...options } as never))).toMatch(message)
  })
})

describe('a pipeline', () => {
  it('takes schedules and sensors of its own assets, each once', () => {
    const one = schedule('s', { every: '1h', run: report })
    const two = sensor('s', { every: '1h', run: report, evaluate: () => ({ cursor: 1, runs: [] }) })
    expect(pipeline('p', [report], { schedules: [one], sensors: [two] }).spec.sensors).toHaveLength(1)
    const options = (more: object) => () => pipeline('p', [report], more)
    expect(refusal(options({ schedules: [one, one] }))).toMatch(/two schedules named s/)
    expect(refusal(options({ schedules: [two] }))).toMatch(/schedules\[0\] is no schedule/)
    expect(refusal(options({ sensors: one }))).toMatch(/sensors must be a list/)
    expect(refusal(() => pipeline('p', [order], { schedules: [one] }))).toMatch(
      /schedule s runs report, which is not in/,
    )
  })
})
