import { expect, it } from 'vitest'
import { heldBy, homeAnswer, inboxAnswer, runAnswer, type Said, waitsFor } from '../../src/console/answers.ts'
import type { Gate, Home, RunExplained, RunPage, Scatter, Span } from '../../src/console/api/types.ts'
import { ganttOf, timeWent } from '../../src/console/gantt.ts'
import { factWords, gateAsk, gateDetails, gateOutcome, leftOf } from '../../src/console/gates.ts'
import { chainOf, errorsOf, filterOf, progressOf } from '../../src/console/runs.ts'
import { runState } from '../../src/console/words.ts'

const START = Date.parse('2026-11-28T13:30:00.000Z')
const at = (seconds: number): string => new Date(START + seconds * 1000).toISOString()
const text = (said: readonly Said[]): string => said.map((part) => part.text).join('')
const link = (path: readonly string[]): string => path.join('/')

function run(assets: RunExplained['assets'], more: Partial<RunExplained> = {}): RunExplained {
  return {
    id: '0-r',
    pipeline: 'shop',
    version: 'v',
    target: 'all',
    status: 'running',
    requestedAt: at(0),
    waitingFor: [],
    assets,
    ...more,
  }
}

const asset = (
  status: RunExplained['assets'][string]['status'],
  more: Partial<RunExplained['assets'][string]> = {},
) => ({
  status,
  attempt: 1,
  waitingFor: [],
  ...more,
})

function gate(more: Partial<Gate> = {}): Gate {
  return {
    id: '0-r.check.a1n1',
    run: '0-r',
    asset: 'check',
    status: 'waiting',
    openedAt: at(0),
    deadline: at(3600),
    timeouts: 0,
    retriesLeft: 0,
    kind: 'approval',
    ...more,
  }
}

const home = (more: Partial<Home> = {}): Home => ({
  runs: { open: 0, more: false, shown: [] },
  scatters: [],
  gates: { waiting: 0, more: false, shown: [] },
  failed: [],
  due: [],
  problems: [],
  ...more,
})

it('home says whether anybody is needed, and what is wrong first', () => {
  expect(text(homeAnswer(home(), START, link))).toBe('No run is open. Nobody needs you.')
  const busy = home({
    runs: { open: 6, more: false, shown: [] },
    gates: { waiting: 1, more: false, shown: [gate()] },
    failed: [run({}, { status: 'failed', finishedAt: at(-60) }), run({}, { status: 'failed', finishedAt: at(-7200) })],
  })
  const said = homeAnswer(busy, START, link)
  expect(text(said)).toBe('6 runs are open. 1 gate waits for you. 1 run failed in the last hour.')
  expect(said.map(({ tone }) => tone)).toContain('gate')
  const ill = homeAnswer(home({ problems: [{ code: 'no_room', message: 'the disk is full' }] }), START, link)
  expect(ill[0]).toMatchObject({ text: 'An engine has a problem: the disk is full. ', tone: 'fail' })
  expect(text(homeAnswer(home({ runs: { open: 1000, more: true, shown: [] } }), START, link))).toContain(
    'More than 1,000 runs are open.',
  )
})

it('a run that waits says for what, and one of which anything goes on does not wait', () => {
  const waits = asset('suspended', {
    gate: '0-r.check.a1n1',
    deadline: at(3600),
    waitingFor: ['a signal: at gate 0-r.check.a1n1'],
  })
  const after = asset('waiting', { waitingFor: ['its dependencies: check (suspended)'] })
  const held = heldBy(run({ check: waits, after }), [gate()], START)
  expect(waitsFor(held)).toBe('Waits for approval of check, 60 min left')
  expect(waitsFor(heldBy(run({ check: waits, busy: asset('running') }), [], START))).toBe('Nothing holds it up')
  expect(waitsFor(heldBy(run({}, { waitingFor: ['an engine'] }), [], START))).toBe('Waits for an engine')
  const limited = asset('scattering', { waitingFor: ['rate limit api', 'a pause'] })
  expect(waitsFor(heldBy(run({ limited }), [], START))).toBe('Waits for rate limit api, and 1 other thing')
})

it('a run that has ended says how, after how long, and because of what', () => {
  const broken = asset('failed', { attempt: 3, error: { code: 'error', message: 'upload failed\n  at put' } })
  expect(text(runAnswer(run({ broken }, { status: 'failed', finishedAt: at(90) }), [], START))).toBe(
    'Failed after 2 min: broken said: upload failed (attempt 3).',
  )
  expect(text(runAnswer(run({}, { status: 'succeeded', finishedAt: at(3) }), [], START))).toBe('Succeeded after 3 s.')
})

it('the inbox says by when the first answer is due', () => {
  expect(text(inboxAnswer([], false, START))).toBe('Nobody waits for you.')
  expect(text(inboxAnswer([gate()], false, START))).toBe('1 gate waits for an answer, the first for 60 min more.')
  const urgent = inboxAnswer([gate({ deadline: at(60) }), gate()], true, START)
  expect(text(urgent)).toBe('More than 2 gates wait for an answer, the first for 60 s more.')
  expect(urgent.some(({ tone }) => tone === 'fail')).toBe(true)
  const { deadline: _, ...open } = gate()
  expect(text(inboxAnswer([open], false, START))).toBe('1 gate waits for an answer, without a deadline.')
})

it('a gate shows what its code said, whatever JSON that is', () => {
  const asked = gate({ metadata: { message: 'Publish?', context: { rows: 12 }, by: ['a'] } })
  expect(gateAsk(asked)).toBe('Publish?')
  expect(gateDetails(asked)).toEqual([
    ['by', '["a"]'],
    ['rows', '12'],
  ])
  for (const metadata of [null, 1, 'x', ['message'], { message: 3 }])
    expect(gateAsk(gate({ metadata }))).toBe('Approve check?')
  expect(gateAsk(gate({ kind: 'signal', index: 4 }))).toBe('Signal for check, instance 4')
  expect(leftOf(gate({ deadline: at(-1) }), START)).toEqual({ text: 'due', isUrgent: true })
  const signal = { payload: { approved: false }, headers: {} }
  expect(gateOutcome(gate({ status: 'signaled', signal })).text).toBe('Rejected')
  expect(gateOutcome(gate({ status: 'timed_out' })).state).toBe('fail')
  expect(factWords({ kind: 'gate.extended', data: { why: 'request', by: 'http:ana', deadlineMs: START } }).text).toBe(
    `Extended by http:ana until ${at(0)}`,
  )
  expect(factWords({ kind: 'gate.resolved', data: { outcome: 'timed_out' } })).toEqual({
    text: 'timed out',
    state: 'fail',
  })
})

const scatter = (more: Partial<Scatter> = {}): Scatter => ({
  id: '0-r.pages',
  status: 'open',
  total: 100,
  stored: 100,
  succeeded: 60,
  failed: 10,
  timedOut: 0,
  pending: 30,
  leased: 5,
  running: 5,
  suspended: 0,
  waitingForRetry: 0,
  waiting: 20,
  cancelled: 0,
  resultsStored: 60,
  redrivable: 10,
  progress: 70,
  perSecond: 2,
  startedAt: at(1),
  longest: [],
  waitingFor: [],
  ...more,
})

it('the progress of a run is that of its largest open scatter, else of its assets', () => {
  const assets = { a: asset('materialized'), pages: asset('scattering') }
  expect(progressOf(run(assets), [scatter(), scatter({ id: '0-r2.pages', total: 9999 })]).text).toBe(
    '70 % of 100 pages',
  )
  expect(progressOf(run(assets), [scatter({ status: 'completed' })])).toMatchObject({ text: '1 of 2 assets' })
})

it('the state of a run is what the most advanced of its assets does', () => {
  expect(runState(run({ a: asset('suspended'), b: asset('running') }))).toBe('run')
  expect(runState(run({ a: asset('suspended'), b: asset('waiting') }))).toBe('gate')
  expect(runState(run({ a: asset('queued', { attempt: 2 }) }))).toBe('retry')
  expect(runState(run({}, { status: 'queued' }))).toBe('wait')
})

it('errors stand with their causes, what failed for good first', () => {
  const error = { code: 'UploadError', message: 'upload failed', cause: { code: 'error', message: '413' } }
  const assets = {
    again: asset('queued', { attempt: 2, error }),
    gone: asset('failed', { error }),
    fine: asset('materialized', { error }),
  }
  expect(errorsOf(run(assets)).map(({ asset: name, isLast }) => [name, isLast])).toEqual([
    ['gone', true],
    ['again', false],
  ])
  expect(chainOf(error).map(({ message }) => message)).toEqual(['upload failed', '413'])
  const endless: { code: string; message: string; cause?: unknown } = { code: 'a', message: 'a' }
  endless.cause = endless
  expect(chainOf(endless as never)).toHaveLength(10)
})

it('what is typed finds an asset, or a tag', () => {
  expect(filterOf('open', 'shop/pages')).toEqual({ open: true, target: 'shop/pages' })
  expect(filterOf('failed', 'team=a')).toEqual({ status: 'failed', tag: 'team=a' })
  expect(filterOf('all', '')).toEqual({})
})

const span = (name: string, from: number, to: number | undefined, more: Partial<Span> = {}): Span => ({
  kind: 'attempt',
  asset: name,
  attempt: 1,
  phase: 'execute',
  from: at(from),
  ...(to === undefined ? {} : { to: at(to) }),
  ...more,
})

/** An hour: tried twice, at a gate, and one that has not begun. */
const page: RunPage = {
  run: run({
    later: asset('waiting'),
    check: asset('suspended', { gate: '0-r.check.a1n1' }),
    tried: asset('materialized', { attempt: 2 }),
  }),
  scatters: [],
  gates: [gate()],
  timeline: [
    span('tried', 0, 600, { outcome: 'error' }),
    span('tried', 1200, 1800, { attempt: 2, outcome: 'materialized' }),
    span('check', 1800, undefined, { kind: 'gate', gate: '0-r.check.a1n1' }),
    // Stored behind the end of its attempt, so it never ends by itself.
    span('check', 1800, undefined),
  ],
}

it('the timeline has a row for each asset: attempts, waits between them, and gates', () => {
  const now = START + 3_600_000
  const { rows, ticks, now: present = 0 } = ganttOf(page, now)
  expect(rows.map((row) => row.asset)).toEqual(['tried', 'check', 'later'])
  const [tried, check, later] = rows
  expect(tried?.bars.map(({ kind, state }) => [kind, state])).toEqual([
    ['solid', 'fail'],
    ['thin', 'retry'],
    ['solid', 'done'],
  ])
  expect(tried?.text).toBe('2 attempts, 30 min')
  expect(check?.bars).toEqual([expect.objectContaining({ kind: 'gate', to: present })])
  expect(check?.text).toBe('approval, due now')
  expect(later?.bars).toEqual([{ kind: 'thin', state: 'wait', from: 0, to: present }])
  for (const { from, to } of rows.flatMap((row) => row.bars)) expect(0 <= from && from <= to && to <= 1).toBe(true)
  expect(ticks.length).toBeGreaterThan(2)
  expect(ganttOf({ ...page, run: { ...page.run, status: 'succeeded', finishedAt: at(1800) } }, now).now).toBeUndefined()
})

it('the time of a run went into code, retries, gates and turns, and each moment counts once', () => {
  const went = timeWent(page, START + 3_600_000)
  expect(went.map(({ name, share }) => [name, Math.round(share * 12)])).toEqual([
    ['Code ran', 4],
    ['Instances ran', 0],
    ['Waited for retries', 2],
    ['Waited for gates', 6],
    ['Waited for its turn', 0],
  ])
})
