import { expect, it } from 'vitest'
import type { Said } from '../../src/console/answers.ts'
import type { ErrorGroup, Scatter } from '../../src/console/api/types.ts'
import { reasonsOf } from '../../src/console/scatter/reasons.ts'
import {
  allowedOf,
  failedAtEnd,
  isOfGroup,
  lostToLimits,
  meterOf,
  scatterAnswer,
  thresholdText,
  withSeen,
} from '../../src/console/scatter/said.ts'

const NOW = new Date(2026, 10, 28, 14, 32, 8).getTime()
const at = (hours: number, minutes: number): string => new Date(2026, 10, 28, hours, minutes).toISOString()
const link = (path: readonly string[]): string => `#/${path.join('/')}`

const OPEN: Scatter = {
  id: '0-1.pages',
  status: 'open',
  total: 1000,
  stored: 1000,
  succeeded: 740,
  failed: 10,
  timedOut: 2,
  pending: 250,
  leased: 20,
  running: 10,
  suspended: 3,
  waitingForRetry: 7,
  waiting: 220,
  cancelled: 0,
  resultsStored: 740,
  redrivable: 0,
  progress: 75,
  perSecond: 1.5,
  estimatedEnd: at(14, 50),
  failuresLeft: 10,
  startedAt: at(14, 0),
  longest: [],
  waitingFor: ['room: 220 instances are fed to workers as others end'],
}
const LIMITED =
  'its rate limit: 220 in 1000 ms, bucket shop-api; the next turn is at 2026-11-28T14:32:09.000Z; 10 leased instances wait their turn'
const FORBIDDEN: ErrorGroup = {
  code: 'http_403',
  message: '403 Forbidden: shop 12',
  count: 8,
  instances: [4],
  spread: [],
}

const plain = (parts: readonly Said[]): string => parts.map(({ text }) => text).join('')

function said(change: Partial<Scatter>, errors: readonly ErrorGroup[] = []): string {
  const { first, more } = scatterAnswer({ ...OPEN, ...change }, errors, NOW, link)
  return plain([...first, ...more]).trim()
}

it.each<readonly [string, Partial<Scatter>, string]>([
  ['nothing holds it up', { failed: 0 }, 'Runs, 1.5 a second. Done at about 14:50.'],
  [
    'a limit does',
    { failed: 0, waitingFor: [LIMITED, ...OPEN.waitingFor] },
    'Waits for rate limit shop-api, full at 220 a second. Done at about 14:50.',
  ],
  [
    'no worker is there',
    {
      failed: 0,
      perSecond: 0,
      estimatedEnd: undefined,
      waitingFor: ['a worker: none answers that serves queue catalog/default'],
    },
    'Waits for a worker: none answers that serves queue catalog/default.',
  ],
  [
    'it is paused',
    { paused: { since: at(14, 20), reason: 'shop is down' } },
    'Paused since 14:20: shop is down. 250 instances wait until somebody resumes it. 10 failed.',
  ],
  [
    'keys are being read',
    { total: undefined, stored: 40_000, succeeded: 0, failed: 0 },
    'Keys are being read: 40,000 so far.',
  ],
  ['it begins', { total: undefined, stored: 0, succeeded: 0, failed: 0 }, 'Keys are being read.'],
  [
    'too many fail at this rate',
    { failuresLeft: 2 },
    'Runs, 1.5 a second. At this rate it fails: about 13 would fail, 12 may. 10 failed.',
  ],
  [
    'its time limit comes first',
    { failed: 0, deadline: at(14, 45) },
    'Runs, 1.5 a second. Its time limit ends it at 14:45, before all are done at about 14:50.',
  ],
  [
    'it is done soon',
    { failed: 0, estimatedEnd: new Date(NOW + 40_000).toISOString() },
    'Runs, 1.5 a second. Done in 40 s.',
  ],
  [
    'all succeeded',
    { status: 'completed', succeeded: 1000, failed: 0, pending: 0, perSecond: 2, closedAt: at(14, 20) },
    'All 1,000 succeeded in 20 min. Done at 14:20. 2.0 a second on the whole.',
  ],
  [
    'some failed',
    { status: 'partial_failure', succeeded: 990, pending: 0, closedAt: at(14, 20) },
    'Done at 14:20: 990 succeeded, 10 failed.',
  ],
  [
    'it was cancelled',
    { status: 'cancelled', cancelled: 250, pending: 0, closedAt: at(14, 20) },
    'Cancelled at 14:20. 740 had succeeded. 250 never ended. 10 failed.',
  ],
  [
    'it failed',
    {
      status: 'failed',
      cancelled: 250,
      pending: 0,
      closedAt: at(14, 20),
      error: { code: 'threshold', message: 'more than 9 failed' },
    },
    'Failed at 14:20: more than 9 failed. 10 failed. 250 never ended.',
  ],
])('the first line says that %s', (_, change, text) => {
  expect(said(change)).toBe(text)
})

it('the first line names the error that most fail by', () => {
  expect(said({}, [FORBIDDEN, { ...FORBIDDEN, code: 'timeout' }])).toContain('10 failed, most by http_403.')
  expect(said({}, [FORBIDDEN])).toContain('10 failed, all by http_403.')
})

it('reasons that are known have a name, a number and a link, and others stay as they are', () => {
  const waitingFor = [
    LIMITED,
    'its rate limit: 5 in 60000 ms, a bucket for each key; 3 leased instances wait their turn',
    'its slots: 4 at a time, bucket press; the next turn is at 2026-11-28T14:32:09.000Z; 2 leased instances wait their turn',
    'its limit: maxConcurrent of 8 is used up; 12 leased instances wait their turn',
    'a slot: 6 leased instances wait; slots: 20000, of 2,000 workers',
    'a worker: none answers that serves queue catalog/default',
    'room: 237957 instances are fed to workers as others end',
    'a retry delay: 12 instances, the next in 4200 ms',
    'the end of the first pass: 5 failed instances are retried together then',
    'a signal, or a run: 960 instances wait',
    'somebody to resume it: paused since 2026-11-28T14:20:00.000Z (shop is down)',
    'keys: the scatter function has not given all of them',
    'the moon: it is full',
  ]
  const found = reasonsOf({ waitingFor }, link).map(({ kind, name, count, perSecond }) => [
    kind,
    plain(name),
    count,
    perSecond,
    name.find(({ href }) => href)?.href,
  ])
  expect(found).toEqual([
    ['limit', 'Rate limit shop-api', 10, 220, '#/limits/shop-api'],
    ['limit', 'Rate limit of its key', 3, 5 / 60, undefined],
    ['slots', 'Slots press', 2, undefined, '#/limits/press'],
    ['concurrency', 'maxConcurrent of 8', 12, undefined, undefined],
    ['slot', 'A slot: 2,000 workers with 20,000', 6, undefined, '#/workers'],
    ['worker', 'A worker: none answers that serves queue catalog/default', undefined, undefined, '#/workers'],
    ['room', 'Their turn, as others end', 237_957, undefined, undefined],
    ['retry', 'Retry delay, the next in 4 s', 12, undefined, undefined],
    ['deferred', 'The end of the first pass: then they are retried', 5, undefined, undefined],
    ['gate', 'A signal, or a run', 960, undefined, '#/inbox'],
    ['paused', 'Somebody to resume it', undefined, undefined, undefined],
    ['keys', 'Keys that are still being read', undefined, undefined, undefined],
    ['other', 'The moon: it is full', undefined, undefined, undefined],
  ])
})

it('the meter shows what has failed, and where it ends at this rate', () => {
  expect(allowedOf(OPEN)).toBe(20)
  expect(failedAtEnd(OPEN)).toBe(13)
  expect(meterOf(OPEN)).toEqual({ failed: 0.4, expected: 0.52, mark: 0.8, text: 'At this rate 1.30 % at the end.' })
  expect(meterOf({ ...OPEN, failed: 0, failuresLeft: 0 })).toBeUndefined()
  expect(thresholdText({ ...OPEN, failed: 0, failuresLeft: 0 })).toBe('none may: the first one ends it')
  expect(thresholdText({ ...OPEN, failuresLeft: undefined, total: undefined })).toContain('a share of all keys')
})

it('errors that differ in numbers only are of one group', () => {
  expect(isOfGroup(FORBIDDEN, { code: 'http_403', message: '403 Forbidden: shop 99' })).toBe(true)
  expect(isOfGroup(FORBIDDEN, { code: 'http_403', message: '403 Forbidden: page 99' })).toBe(false)
})

it('the time that limits cost is added up from what was seen', () => {
  const held = { ...OPEN, waitingFor: [LIMITED] }
  let seen = withSeen([], held, 1000, link)
  seen = withSeen(seen, held, 1200, link)
  seen = withSeen(seen, OPEN, 5000, link)
  seen = withSeen(seen, held, 9000, link)
  seen = withSeen(seen, { ...held, status: 'cancelled' }, 12_000, link)
  expect(seen).toHaveLength(3)
  expect(lostToLimits(seen)).toEqual({ lostMs: 4000, seenMs: 8000 })
})
