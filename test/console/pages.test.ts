import { expect, it } from 'vitest'
import type { AuditEntry, Fact, Limit, LogLine, Schedule, Shard, Worker } from '../../src/console/api/types.ts'
import { auditAnswer } from '../../src/console/audit.ts'
import { holderOf, limitRows, limitsAnswer, openRunsOf } from '../../src/console/limits.ts'
import { factLine, factOf, factTone, logAnswer, merged } from '../../src/console/log.ts'
import { KEPT_MAX, messageLine, NOTHING_READ, placeOf, toneOf, withPage } from '../../src/console/run-logs.ts'
import { lane, lastOf, missedWords, refusedRows, schedulesAnswer } from '../../src/console/schedules.ts'
import { engineRows, olderCode, workersAnswer, workersTrouble } from '../../src/console/workers.ts'

const NOW = Date.parse('2026-11-28T12:00:00.000Z')
const HOUR = 3_600_000
const said = (parts: readonly { text: string }[]): string => parts.map(({ text }) => text).join('')
const at = (hours: number): string => new Date(NOW + hours * HOUR).toISOString()

it('logs are read page by page, and a line says where it was logged', () => {
  const line: LogLine = {
    at: at(0),
    level: 'warn',
    message: 'no answer\nof the shop',
    fields: { city: 'Oslo', error: { message: 'fetch failed', stack: 'x' } },
    run: '0-a',
    pipeline: 'shop',
    asset: 'pages',
    phase: 'execute',
    attempt: 2,
    index: 17,
    key: 'x',
    worker: 'w',
  }
  expect([placeOf(line), messageLine(line), toneOf(line)]).toEqual([
    'pages[17] #2',
    'no answer city="Oslo" error="fetch failed"',
    'retry',
  ])
  const { index: _, key: __, ...own } = line
  expect(placeOf({ ...own, phase: 'gather', attempt: 1 })).toBe('pages gather')
  const page = { lines: Array.from({ length: KEPT_MAX }, () => line), next: '7.0', more: true }
  const first = withPage(NOTHING_READ, { lines: [line], next: '2.0', more: true })
  expect(first).toEqual({ lines: [line], next: '2.0', more: true, left: 0 })
  const second = withPage(first, page)
  expect([second.lines.length, second.left, second.next]).toEqual([KEPT_MAX, 1, '7.0'])
})

it('limits say which of them are full, who waits, and who uses them', () => {
  const rate = {
    shape: 'window' as const,
    limit: 220,
    periodMs: 1000,
    burst: 220,
    utilization: 1,
    reservations: [],
    nextTurn: at(0),
  }
  const limits: Limit[] = [
    { bucket: 'shop', rate: { ...rate, count: 219, remaining: 1, waiting: 30 } },
    { bucket: 'free', rate: { ...rate, shape: 'smooth', burst: 20, count: 5, remaining: 15, waiting: 0 } },
    { bucket: 'gpu', slots: { limit: 4, count: 4, remaining: 0, utilization: 1, waiting: 6, holders: [], queue: [] } },
  ]
  const rows = limitRows(limits, [{ name: 'pages', limits: ['shop'] }])
  expect(rows.map(({ bucket, text, use, isFull, usedBy }) => [bucket, text, use, isFull, usedBy])).toEqual([
    ['free', '220 a second, smooth', '5 of a burst of 20', false, []],
    ['gpu', '4 at a time, slots', '4 of 4 held', true, []],
    ['shop', '220 a second, window', '219 of 220 taken, 30 promised', true, ['pages']],
  ])
  expect(rows[1]?.pips).toEqual([true, true, true, true])
  expect(said(limitsAnswer(rows))).toBe('shop and gpu are full. 36 wait.')
  expect(said(limitsAnswer(rows.slice(0, 1)))).toBe('1 limit in use. None is full.')
  expect(said(limitsAnswer([]))).toBe('No limit is in use.')
  expect(holderOf('0-mx1s8wj6-e2f90ce8.pages.12')).toMatchObject({
    asset: 'pages',
    index: '12',
    text: 'pages, instance 12',
  })
  expect(holderOf('0-mx1s8wj6-e2f90ce8.held')).toMatchObject({ run: '0-mx1s8wj6-e2f90ce8', text: 'held' })
  const used = { name: 'pages', limits: ['shop'], openRuns: ['0-mx1s8wj6-e2f90ce8'] }
  expect(openRunsOf([used, { ...used, name: 'other', limits: [] }], 'shop')).toEqual([
    { asset: 'pages', run: '0-mx1s8wj6-e2f90ce8' },
  ])
  expect([holderOf('a person').text, holderOf(undefined).text]).toEqual(['a person', 'no name given'])
})

it('the audit says who did something last, and how much was done in a day', () => {
  const entry = (seq: number, by: string, hours: number): AuditEntry => ({
    at: at(hours),
    shard: 0,
    seq,
    kind: 'run.requested',
    by,
    what: 'shop/stock',
  })
  expect(
    said(auditAnswer([entry(3, 'cli:ana@pc', -1), entry(2, 'http:ci', -2), entry(1, 'http:ci', -30)], NOW)),
  ).toMatch(/^2 acts in the last day, by 2 names\. The last was cli:ana@pc, \S+\.$/)
  expect(said(auditAnswer([entry(1, 'http:ci', -30)], NOW))).toMatch(/^No act in the last day\. /)
  expect(said(auditAnswer([], NOW))).toBe('Nobody did anything of this kind.')
})

it('workers say who is there, and what is wrong with whom', () => {
  const worker = (id: string, more: Partial<Worker> = {}): Worker => ({
    id,
    state: 'answers',
    seenAt: at(0),
    pipelines: [{ name: 'shop', queues: ['default'], versions: ['v2'], running: [] }],
    slots: 10,
    free: 2,
    loopDelayMs: 3,
    ...more,
  })
  const old = [{ name: 'shop', queues: [], versions: ['v1'], running: [] }]
  const shard = (n: number, more: Partial<Shard> = {}): Shard => ({
    shard: n,
    engine: 'e1',
    behind: 0,
    last: 9,
    messages: 9,
    ...more,
  })
  const newest = [{ name: 'shop', version: 'v2' }]
  const all = [
    worker('w1'),
    worker('w2', { loopDelayMs: 1800, pipelines: old }),
    worker('w3', { state: 'silent', seenAt: at(-1) }),
  ]
  const engines = [
    { id: 'e2', active: [] },
    { id: 'e1', active: [0] },
  ]
  expect(engineRows([shard(0)], engines).map(({ id, shards }) => [id, shards])).toEqual([
    ['e1', [0]],
    ['e2', []],
  ])
  expect(said(workersTrouble([worker('w1', { state: 'draining' })], [shard(0)], newest, NOW))).toBe(
    '1 worker ends when what runs has ended. ',
  )
  expect(said(workersAnswer(all, [shard(0), shard(1)]))).toBe('2 workers, 1 engine. All shards have an engine.')
  expect(said(workersTrouble(all, [shard(0), shard(1, { behind: 214 })], newest, NOW))).toBe(
    'w3 is silent since 60 min. w2 answers late: its code blocks the event loop for up to 2 s. 1 worker runs older code. Shard 1 is behind by 214 facts.',
  )
  expect(workersTrouble(all.slice(0, 1), [shard(0)], newest, NOW)).toEqual([])
  expect(all.map((one) => olderCode(one, newest))).toEqual([[], ['shop'], []])
  const none = { engine: undefined }
  expect(said(workersAnswer([], [shard(0, none)]))).toBe(
    'No worker answers, 0 engines. No shard has an engine: nothing goes on.',
  )
  expect(said(workersAnswer(all, [shard(0), shard(1, none)]))).toContain('1 shard has no engine.')
})

const schedule = (name: string, more: Partial<Schedule> = {}): Schedule => ({
  name: `shop/${name}`,
  pipeline: 'shop',
  schedule: name,
  target: 'stock',
  when: { everyMs: HOUR, anchor: at(0) },
  state: 'active',
  next: at(1),
  open: [],
  waiting: 0,
  fired: 1,
  skipped: 0,
  missed: 0,
  ...more,
})

it('a lane has a mark for what became of each start, and the worst shows', () => {
  const marks = lane(
    [
      { what: 'fired', at: at(-6), run: 'good' },
      { what: 'fired', at: at(-3), run: 'bad' },
      { what: 'fired', at: new Date(NOW - 3 * HOUR + 1000).toISOString(), run: 'good' },
      { what: 'missed', at: at(-2), count: 3 },
      { what: 'skipped', at: at(-1), why: 'run_open' },
      { what: 'fired', at: at(-13), run: 'good' },
    ],
    [at(6), at(13)],
    new Map([
      ['good', 'succeeded'],
      ['bad', 'failed'],
    ]),
    NOW,
  )
  expect(marks.map(({ share, kind, count, run }) => [share, kind, count, run])).toEqual([
    [0.25, 'done', 1, 'good'],
    [0.375, 'fail', 2, 'bad'],
    [expect.closeTo(0.417, 2), 'missed', 3, undefined],
    [expect.closeTo(0.458, 2), 'skipped', 1, undefined],
    [0.75, 'due', 1, undefined],
  ])
  expect(marks[3]?.title).toMatch(/: skipped: run open$/)
  expect(marks[1]?.title).toMatch(/1 failed, 1 succeeded/)
})

it('schedules say what is next, and what was missed and skipped', () => {
  const all = [
    schedule('late', { next: at(3), missed: 2, skipped: 1, last: { what: 'missed', at: at(-1), why: 'no_engine' } }),
    schedule('soon'),
    schedule('held', { state: 'paused', pausedBecause: 'holidays' }),
  ]
  expect(said(schedulesAnswer(all, [], NOW))).toMatch(/^Next is soon at \S+\. 2 starts were missed, 1 skipped\.$/)
  expect(said(schedulesAnswer([], [], NOW))).toBe('No schedule.')
  expect(missedWords(all)).toMatch(/^late missed \S+ \(no engine\)\. held is paused\.$/)
  const runs = new Map([['r', 'failed']] as const)
  const last = (more: Partial<Schedule>) => lastOf(schedule('x', more), runs, NOW)
  expect(last({ state: 'paused', pausedBecause: 'holidays' })).toMatchObject({ state: 'off', text: 'paused: holidays' })
  expect(last({ last: { what: 'fired', at: at(-1), run: 'r' } })).toMatchObject({ state: 'fail', run: 'r' })
  expect(last({ open: [{ at: at(-1), run: 'r', evaluating: false }] })).toMatchObject({ state: 'run' })
})

it('what was refused stands in one list, the newest first', () => {
  const message = { pipeline: 'shop', subscription: 'in', stream: 'IN', seq: 7, reason: 'no json', at: at(-2) }
  const rows = refusedRows(
    [message],
    [{ id: '3-1', asset: 'nothing', reason: 'no such asset', at: at(-1), kept: true }],
  )
  expect(rows.map(({ reason, message: own }) => [reason, own?.seq])).toEqual([
    ['no such asset', undefined],
    ['no json', 7],
  ])
})

it('a fact says what it is about, and the log how much there was', () => {
  const fact = (seq: number, more: Partial<Fact> = {}): Fact => ({
    shard: 0,
    seq,
    at: at(0),
    kind: 'run.finished',
    ids: { run: '0-r' },
    ...more,
  })
  expect(factOf(fact(1, { ids: { pipeline: 'shop', asset: 'pages', run: '0-r' } }))).toBe('shop/pages')
  expect(factLine({ data: { n: 1, error: { message: 'no paper\nat x' }, list: [1], none: null } })).toBe(
    'n: 1, error: no paper',
  )
  expect(['gate.resolved', 'asset.failed', 'lease.lost', 'run.finished', 'scatter.begun'].map(factTone)).toEqual([
    'gate',
    'fail',
    'fail',
    'run',
    undefined,
  ])
  expect(merged([fact(3), fact(2)], [fact(2), fact(1)]).map(({ seq }) => seq)).toEqual([3, 2, 1])
  expect(said(logAnswer([fact(2, { kind: 'asset.failed' }), fact(1)], false, NOW, undefined))).toBe(
    '2 facts in the minute before now. 1 of the last 2 say that something failed.',
  )
  expect(said(logAnswer([], false, NOW, '12:00:00'))).toBe('No facts of this kind before 12:00:00.')
})
