import { describe, expect, it } from 'vitest'
import { AUDITED, auditOf, isAudited, isWanted, Newest } from '../../projections/audit.ts'
import { byPart, isBy, isByName, joinBy, ownPart } from '../../streams/by.ts'
import { FACTS, type Fact, type FactDraft, factNames } from '../../streams/facts.ts'
import { runId } from '../../streams/ids.ts'

const run = runId(0, 'abc')
const at = { shard: 0, seq: 7, timeMs: 1000 }
const fact = (draft: unknown): Fact => ({ ...(draft as FactDraft), ...at }) as Fact
const requested = (data: object): Fact =>
  fact({
    name: 'run.requested',
    ids: { run },
    data: { pipeline: 'p', version: 'v', target: 't', upstream: 'all', ...data },
  })
const resolved = (data: object): Fact =>
  fact({ name: 'gate.resolved', ids: { run, asset: 'a', gate: 'g' }, data: { run, asset: 'a', gate: 'g', ...data } })
const by = (of: Fact): string | undefined => auditOf(of)?.by

describe('auditOf', () => {
  it.each([
    ['what it says', requested({ by: 'cli:ana@laptop' }), 'cli:ana@laptop'],
    ['of an earlier version', requested({}), 'unknown'],
    ['of a trigger', requested({ trigger: { seq: 1 } }), 'trigger'],
    ['of a message', requested({ event: { subscription: 's', stream: 'S', seq: 1 } }), 'subscription:p/s'],
    [
      'of a retry of a message',
      requested({ event: { subscription: 's', stream: 'S', seq: 1 }, retry: { run } }),
      'unknown',
    ],
    ['of a schedule', requested({ schedule: { name: 's', occurrence: '1', atMs: 1 } }), undefined],
    ['of a sensor', requested({ sensor: { name: 's', evaluation: 1 } }), undefined],
    ['of a run', requested({ parent: { run, asset: 'a', gate: 'g' } }), undefined],
  ])('names who asked for a run: %s', (_, of, expected) => {
    expect(by(of)).toBe(expected)
  })

  it.each([
    [
      'a signal with a source',
      { outcome: 'signaled', source: 'github 1.2.3.4', by: 'nats:http' },
      'gate:github/1.2.3.4 nats:http',
    ],
    ['a signal of a program', { outcome: 'signaled', by: 'app:shop' }, 'app:shop'],
    ['a signal of an earlier version', { outcome: 'signaled' }, 'unknown'],
    ['a run that was waited for', { outcome: 'signaled', child: { status: 'succeeded' } }, undefined],
    ['a cancel', { outcome: 'cancelled', by: 'cli:ana@laptop' }, 'cli:ana@laptop'],
    ['a cancel of the engine', { outcome: 'cancelled', reason: 'what opened it has ended' }, undefined],
    ['a timeout', { outcome: 'timed_out' }, undefined],
  ])('names who ended a gate: %s', (_, data, expected) => {
    expect(by(resolved(data))).toBe(expected)
  })

  it('leaves out what the engine decides: cancels without a name, retries of a deadline', () => {
    expect(auditOf(fact({ name: 'run.cancel_requested', ids: { run }, data: { reason: 'overlap' } }))).toBeUndefined()
    const extended = { name: 'gate.extended', ids: { run, asset: 'a', gate: 'g', n: '1' } }
    expect(auditOf(fact({ ...extended, data: { why: 'retry', deadlineMs: 5, timeouts: 1 } }))).toBeUndefined()
    expect(auditOf(fact({ ...extended, data: { why: 'request', deadlineMs: 5, timeouts: 0, by: 'Ana' } }))).toEqual({
      at: new Date(1000),
      shard: 0,
      seq: 7,
      kind: 'gate.extended',
      by: 'Ana',
      what: `${run}.a.g`,
      run,
      detail: 'until 1970-01-01T00:00:00.005Z',
    })
    expect(auditOf(fact({ name: 'run.finished', ids: { run }, data: {} }))).toBeUndefined()
  })

  it('says what a run takes up', () => {
    expect(auditOf(requested({ retry: { run, from: 'x' }, partition: 'eu' }))).toMatchObject({
      what: 'p/t@eu',
      detail: `retry of ${run} from x`,
    })
    expect(auditOf(requested({ redrive: { run, asset: 'a', total: 1 } }))?.detail).toBe(`redrive of ${run}.a`)
    expect(auditOf(requested({ key: 'k', retryOf: run }))?.detail).toBe(`again after ${run}`)
  })

  it('knows each fact that says who caused it', () => {
    // The copy of a trigger, whose run or refusal is listed. Of a schedule, `by` says how it was
    // started.
    const others = new Set(['trigger.received', 'schedule.fired', 'schedule.skipped'])
    const named = factNames().filter((name) => 'by' in FACTS[name].schema.shape && !others.has(name))
    expect(named.filter((name) => !isAudited(name))).toEqual([])
  })

  it('has no kind twice', () => {
    expect(new Set(AUDITED).size).toBe(AUDITED.length)
  })
})

describe('what is wanted of the audit', () => {
  const entry = { at: new Date(1000), shard: 0, seq: 1, kind: 'run.requested', by: 'nats:ops', what: 'p/t' } as const
  const any = { sinceMs: 0, untilMs: 2000 }
  it('is what meets all conditions; its time is from since on, and before until', () => {
    expect(isWanted(entry, any)).toBe(true)
    expect(isWanted(entry, { ...any, sinceMs: 1000 })).toBe(true)
    expect(isWanted(entry, { ...any, sinceMs: 1001 })).toBe(false)
    expect(isWanted(entry, { ...any, untilMs: 1000 })).toBe(false)
    expect(isWanted(entry, { ...any, kinds: ['gate', 'run'] })).toBe(true)
    expect(isWanted(entry, { ...any, kinds: ['ru'] })).toBe(false)
    expect(isWanted(entry, { ...any, by: 'ops' })).toBe(true)
    expect(isWanted(entry, { ...any, by: 'op' })).toBe(false)
  })

  it('comes behind the last entry of the page before, also in one millisecond', () => {
    const all = [0, 1].flatMap((shard) => [5, 3].map((seq) => ({ ...entry, shard, seq })))
    const pages: (typeof all)[number][] = []
    for (let after: (typeof all)[number] | undefined; pages.length < 10; after = pages.at(-1)) {
      const newest = new Newest(1)
      for (const one of all) if (isWanted(one, { ...any, after })) newest.add(one)
      const [found] = newest.list() as typeof all
      if (!found) break
      pages.push(found)
    }
    expect(pages).toEqual(all)
  })

  it('is kept newest first, each once, however many there are', () => {
    const newest = new Newest(3)
    expect(newest.floorMs).toBe(Number.NEGATIVE_INFINITY)
    for (let i = 0; i < 5000; i++) newest.add({ ...entry, seq: i % 2500, at: new Date(i % 2500) })
    expect(newest.list().map(({ seq }) => seq)).toEqual([2499, 2498, 2497])
    expect(newest.floorMs).toBe(2497)
  })
})

describe('by', () => {
  it('is short text without spaces in a part, whatever it is made of', () => {
    expect(byPart('trigger', 'two words\n\u0007x')).toBe('trigger:two_words_x')
    expect(byPart('http', 'x'.repeat(500))).toHaveLength(120)
    expect(byPart('cli', `${'x'.repeat(115)}😀`)).toBe(`cli:${'x'.repeat(115)}`)
    expect(byPart('app', 'a\ud800')).toBe('app:a\ufffd')
    expect(isByName(byPart('webhook', `/${'hooks/'.repeat(100)}`))).toBe(true)
    expect(joinBy(undefined, undefined)).toBeUndefined()
    expect(joinBy('cli:ana@x', undefined, 'nats:ops')).toBe('cli:ana@x nats:ops')
    expect(joinBy('x'.repeat(200), 'y'.repeat(200))).toHaveLength(256)
  })

  it('takes names of programs, with or without a kind', () => {
    expect(ownPart('checkout')).toBe('app:checkout')
    expect(ownPart('job:nightly')).toBe('job:nightly')
    for (const bad of ['', 'two words', 'tab\t', 'x'.repeat(121), 5, undefined]) expect(isByName(bad)).toBe(false)
  })

  it('is found by the whole, a part, a name, a user, and with *', () => {
    const text = 'cli:ana@laptop nats:ops'
    for (const wanted of [
      text,
      'cli:ana@laptop',
      'ana@laptop',
      'ana',
      'ops',
      'nats:ops',
      'cli:*',
      '*laptop',
      'cli:a*p',
    ])
      expect([wanted, isBy(text, wanted)]).toEqual([wanted, true])
    for (const wanted of ['an', 'laptop', 'cli', 'ops*x', 'c.i:*', '(', 'a|ops'])
      expect([wanted, isBy(text, wanted)]).toEqual([wanted, false])
  })
})
