import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { CONTENT_TYPE, encode, encodeJson } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import {
  decodeFact,
  encodeFact,
  expectationPath,
  FACTS,
  type FactDraft,
  type FactName,
  factNames,
  factPath,
  isRepeatable,
  parsePath,
} from '../../streams/facts.ts'
import { assetName, runId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'

const run = runId(0, 'r1')
const asset = assetName('a')
const error = { code: 'c', message: 'm' }
const end = { run, asset: 'a' }

/** One of each, with all that may stand in it. */
const drafts: { [N in FactName]: Extract<FactDraft, { name: N }> } = {
  'pipeline.registered': {
    name: 'pipeline.registered',
    ids: { pipeline: 'p', version: 'v' },
    data: {
      name: 'p',
      version: 'v',
      assets: [
        {
          name: 'a',
          shape: 'abc',
          dependsOn: ['b'],
          scatter: {
            failureMode: 'all_or_nothing',
            threshold: { fraction: 0 },
            strategy: 'individual',
            duplicates: 'allow',
          },
          queue: 'q',
          priority: 3,
          timeoutMs: 1.5,
          retry: { maxAttempts: 1, backoffMinMs: 0, backoffMaxMs: 9 },
        },
      ],
    },
  },
  'run.requested': {
    name: 'run.requested',
    ids: { run },
    data: {
      pipeline: 'p',
      version: 'v',
      target: 'a',
      upstream: 'none',
      partition: 'ü/x',
      key: 'k',
      trigger: { seq: 4, msgId: 'm' },
    },
  },
  'schedule.due': {
    name: 'schedule.due',
    ids: { pipeline: 'p', schedule: 's', step: '3' },
    data: {
      fromMs: 1,
      upToMs: 9,
      nowMs: 9,
      skipped: { firstMs: 2, lastMs: 3, count: 2 },
      missed: { firstMs: 4, lastMs: 5, count: 2, why: 'late' },
      at: [8, 9],
      ends: true,
    },
  },
  'schedule.fired': {
    name: 'schedule.fired',
    ids: { pipeline: 'p', schedule: 's', occurrence: '8' },
    data: { atMs: 8, run, by: 'backfill' },
  },
  'schedule.skipped': {
    name: 'schedule.skipped',
    ids: { pipeline: 'p', schedule: 's', occurrence: '2' },
    data: { why: 'paused', atMs: 2, lastMs: 3, count: 2, by: 'trigger', error },
  },
  'schedule.missed': {
    name: 'schedule.missed',
    ids: { pipeline: 'p', schedule: 's', occurrence: '4' },
    data: { why: 'changed', atMs: 4, lastMs: 5, count: 2 },
  },
  'schedule.paused': { name: 'schedule.paused', ids: { pipeline: 'p', schedule: 's' }, data: { reason: 'r' } },
  'schedule.resumed': { name: 'schedule.resumed', ids: { pipeline: 'p', schedule: 's' }, data: {} },
  'schedule.triggered': {
    name: 'schedule.triggered',
    ids: { pipeline: 'p', schedule: 's', request: 'r' },
    data: {},
  },
  'sensor.paused': { name: 'sensor.paused', ids: { pipeline: 'p', sensor: 's' }, data: { reason: 'r' } },
  'sensor.resumed': { name: 'sensor.resumed', ids: { pipeline: 'p', sensor: 's' }, data: {} },
  'sensor.triggered': { name: 'sensor.triggered', ids: { pipeline: 'p', sensor: 's', request: 'r' }, data: {} },
  'schedule.backfill_requested': {
    name: 'schedule.backfill_requested',
    ids: { pipeline: 'p', schedule: 's', request: 'r' },
    data: { at: [1, 2] },
  },
  'run.planned': {
    name: 'run.planned',
    ids: { run },
    data: { assets: [{ name: 'a', reuse: { shard: 0, seq: 9 } }, { name: 'b' }], error },
  },
  'run.timer_fired': { name: 'run.timer_fired', ids: { run }, data: { timeoutMs: 1000 } },
  'run.adopt_requested': { name: 'run.adopt_requested', ids: { run }, data: { version: 'v2' } },
  'run.adopted': {
    name: 'run.adopted',
    ids: { run, request: '7' },
    data: { version: 'v2', from: 'v1', replanned: { a: 2 }, added: ['b'] },
  },
  'run.adopt_refused': {
    name: 'run.adopt_refused',
    ids: { run, request: '7' },
    data: { version: 'v2', misfits: ['a has begun'] },
  },
  'run.cancel_requested': { name: 'run.cancel_requested', ids: { run }, data: { reason: 'r' } },
  'run.finished': {
    name: 'run.finished',
    ids: { run },
    data: {
      run,
      pipeline: 'p',
      target: 'a',
      partition: 'x',
      status: 'failed',
      value: { shard: 0, seq: 1 },
      asset: 'a',
      error,
      durationMs: 1,
    },
  },
  'asset.started': {
    name: 'asset.started',
    ids: { pipeline: 'p', asset, run, attempt: '1' },
    data: { phase: 'gather', worker: 'w', delivery: 1 },
  },
  'attempt.ended': {
    name: 'attempt.ended',
    ids: { pipeline: 'p', asset, run, attempt: '1' },
    data: {
      phase: 'scatter',
      worker: 'w',
      outcome: 'timeout',
      error: { ...error, stack: 's' },
      retryAfterMs: 5,
      durationMs: 1,
    },
  },
  'asset.materialized': {
    name: 'asset.materialized',
    ids: { pipeline: 'p', asset, run },
    data: {
      ...end,
      pipeline: 'p',
      partition: 'x',
      attempt: 1,
      worker: 'w',
      value: { manager: 'nats', ref: { id: 1 } },
      durationMs: 1,
    },
  },
  'asset.failed': {
    name: 'asset.failed',
    ids: { pipeline: 'p', asset, run },
    data: { ...end, pipeline: 'p', error, attempts: 3 },
  },
  'asset.skipped': {
    name: 'asset.skipped',
    ids: { pipeline: 'p', asset, run },
    data: { ...end, pipeline: 'p', because: 'b' },
  },
  'asset.cancelled': {
    name: 'asset.cancelled',
    ids: { pipeline: 'p', asset, run },
    data: { ...end, pipeline: 'p', reason: 'r' },
  },
  'scatter.started': { name: 'scatter.started', ids: { run, asset }, data: { attempt: 1, worker: 'w' } },
  'scatter.items': {
    name: 'scatter.items',
    ids: { run, asset, offset: '0' },
    data: {
      count: 2,
      keys: ['k', { n: 1 }],
      hash: 'h',
      cursor: { reader: 'lines of x', at: { at: 3, version: 'v' }, skip: 1 },
    },
  },
  'scatter.sized': { name: 'scatter.sized', ids: { run, asset }, data: { total: 0 } },
  'scatter.outcomes': {
    name: 'scatter.outcomes',
    ids: { run, asset },
    data: {
      lease: '0-3-1',
      ordinal: 1,
      worker: 'w',
      at: [0, 1, 2],
      ms: [0.5, 1, 2],
      values: [{ x: [1] }, null, null],
      refs: [[1, { msgpack: 'oQ==' }]],
      errors: [[2, { error, outcome: 'terminal', retryAfterMs: 0 }]],
      heldMs: 3.25,
    },
  },
  'lease.lost': {
    name: 'lease.lost',
    ids: { run, asset, lease: '0-3-1' },
    data: { lease: '0-3-1', worker: 'w' },
  },
  'lease.returned': {
    name: 'lease.returned',
    ids: { run, asset, lease: '0-3-1-2' },
    data: { lease: '0-3-1', worker: 'w', from: 2, heldMs: 160 },
  },
  'asset.suspended': {
    name: 'asset.suspended',
    ids: { pipeline: 'p', run, asset, attempt: '1' },
    data: { gate: 'a1n1', worker: 'w' },
  },
  'gate.created': {
    name: 'gate.created',
    ids: { run, asset, gate: 'i3a2n1' },
    data: {
      kind: 'signal',
      attempt: 2,
      index: 3,
      keyChunk: 0,
      worker: 'w',
      deadlineMs: 1_795_612_758_228,
      retriesMs: [300_000, 900_000],
      afterRetries: 'fail',
      metadata: { invoice: 7 },
      payload: { type: 'object' },
      keyId: 'k1',
      tokenHash: 'ab',
      correlationHash: 'cd',
    },
  },
  'child.requested': {
    name: 'child.requested',
    ids: { run, asset, gate: 'a1n1' },
    data: {
      attempt: 1,
      index: 4,
      keyChunk: 0,
      worker: 'w',
      child: '0-r2',
      request: { pipeline: 'p', version: 'v', target: 'b', upstream: 'all', parent: { run, asset, gate: 'a1n1' } },
    },
  },
  'run.awaited': { name: 'run.awaited', ids: { run, parent: '0-r2', asset, gate: 'a1n1' }, data: {} },
  'run.abandoned': { name: 'run.abandoned', ids: { run, parent: '0-r2', asset, gate: 'a1n1' }, data: {} },
  'gate.timer_fired': { name: 'gate.timer_fired', ids: { run, asset, gate: 'a1n1' }, data: { n: 0 } },
  'gate.extended': {
    name: 'gate.extended',
    ids: { run, asset, gate: 'a1n1', n: '1' },
    data: { why: 'request', deadlineMs: 1_795_612_758_228, timeouts: 1, by: 'somebody' },
  },
  'gate.deadline_closed': {
    name: 'gate.deadline_closed',
    ids: { run, asset, gate: 'a1n1', n: '1' },
    data: { deadlineMs: 1_795_612_758_228, timeouts: 1 },
  },
  'gate.resolved': {
    name: 'gate.resolved',
    ids: { run, asset, gate: 'a1n1' },
    data: {
      run,
      asset,
      gate: 'a1n1',
      outcome: 'signaled',
      payload: { json: { approved: true } },
      source: '192.0.2.7',
      headers: { 'user-agent': 'x' },
      idempotency: 'ef',
      reason: 'r',
    },
  },
  'gate.correlated': { name: 'gate.correlated', ids: { hash: 'ab' }, data: { run, asset, gate: 'a1n1' } },
  'scatter.begun': { name: 'scatter.begun', ids: { run, asset, lease: '4-5-3' }, data: { worker: 'w', message: 7 } },
  'scatter.paused': { name: 'scatter.paused', ids: { run, asset }, data: { reason: 'r' } },
  'scatter.resumed': { name: 'scatter.resumed', ids: { run, asset }, data: {} },
  'scatter.timer_fired': { name: 'scatter.timer_fired', ids: { run, asset }, data: { timeoutMs: 1000 } },
  'scatter.cancel_requested': { name: 'scatter.cancel_requested', ids: { run, asset }, data: { reason: 'r' } },
  'scatter.ended_early': {
    name: 'scatter.ended_early',
    ids: { run, asset },
    data: { status: 'failed', error },
  },
  'scatter.closed': {
    name: 'scatter.closed',
    ids: { run, asset },
    data: { ...end, status: 'partial_failure', total: 3, succeeded: 2, failed: 1, error },
  },
  'subscription.taken': {
    name: 'subscription.taken',
    ids: { pipeline: 'p', subscription: 's', source: 'ab', from: '7' },
    data: {
      version: 'v',
      worker: 'w',
      stream: 'ORDERS',
      to: 12,
      events: [
        { seq: 8, key: 'k', msgId: 'm', input: { order: { json: { id: 1 } } }, partition: 'x', tags: { a: 'b' } },
        { seq: 9, refused: 'no JSON' },
        { seq: 10, input: { order: { msgpack: 'wA==' } }, group: 'g', bytes: 3 },
        { seq: 11, input: { order: { manager: 'nats', ref: { hash: 'h' } } } },
      ],
    },
  },
  'event.retried': {
    name: 'event.retried',
    ids: { pipeline: 'p', subscription: 's', source: 'ab', seq: '9' },
    data: { version: 'v', worker: 'w', stream: 'ORDERS', events: [{ seq: 9 }] },
  },
  'event.refused': {
    name: 'event.refused',
    ids: { pipeline: 'p', subscription: 's', source: 'ab', seq: '9' },
    data: { pipeline: 'p', subscription: 's', stream: 'ORDERS', seq: 9, key: 'k', msgId: 'm', reason: 'no JSON' },
  },
  'event.timer_fired': {
    name: 'event.timer_fired',
    ids: { pipeline: 'p', subscription: 's', group: 'g' },
    data: {},
  },
  'trigger.received': {
    name: 'trigger.received',
    ids: { trigger: '7-1700000000000' },
    data: { seq: 7, subject: 'a', payload: new Uint8Array([123, 125]), contentType: 'application/json', msgId: 'm' },
  },
  'trigger.refused': {
    name: 'trigger.refused',
    ids: { trigger: '7-1700000000000' },
    data: { pipeline: 'p', asset: 'x y', reason: 'no', msgId: 'm' },
  },
}

const raw = (path: string, payload: Uint8Array, contentType: string | undefined = CONTENT_TYPE.json) => ({
  path,
  payload,
  contentType,
  shard: 0,
  seq: 5,
  timeMs: 6,
})

function codeOf(act: () => unknown): string {
  try {
    act()
  } catch (thrown) {
    if (thrown instanceof FlowStoneError) return thrown.code
    throw thrown
  }
  return 'none'
}

describe.each(factNames())('the fact %s', (name) => {
  const draft = drafts[name]
  const path = factPath(draft.name, draft.ids)

  it('is found again by its path, through a subject', () => {
    const names = namesOf('ns')
    expect(names.factPath(names.fact(3, path))).toBe(path)
    expect(parsePath(path)).toEqual({ name, ids: draft.ids })
  })

  it('keeps its path apart from its ids, whatever these are called', () => {
    for (const id of ['end', 'items', 'started', 'closed', 'materialized', 'requested', '1', '_', '-']) {
      const ids = Object.fromEntries(Object.keys(draft.ids).map((key) => [key, id]))
      const odd = factPath(name, ids)
      expect(parsePath(odd)).toEqual({ name, ids })
      const asset = /^asset\.(failed|materialized|skipped|cancelled)$/.test(name)
      const deadline = name === 'gate.extended' || name === 'gate.deadline_closed'
      const filter = asset
        ? `asset.${id}.${id}.${id}.end.*`
        : deadline
          ? `gate.${id}.${id}.${id}.deadline.${id}.*`
          : /^schedule\.(fired|skipped|missed)$/.test(name)
            ? `schedule.${id}.${id}.at.${id}.*`
            : odd
      expect(expectationPath(odd)).toBe(filter)
    }
  })

  // JSON has no bytes; what holds some is never written as JSON.
  it.each(name === 'trigger.received' ? (['msgpack'] as const) : (['json', 'msgpack'] as const))(
    'comes back from its bytes as it was, as %s too',
    (format) => {
      const { payload, contentType } = encodeFact(draft)
      expect(contentType).toBe(CONTENT_TYPE[FACTS[name].format])
      const expected = { ...draft, shard: 0, seq: 5, timeMs: 6 }
      expect(decodeFact(raw(path, payload, contentType))).toEqual(expected)
      const other = encode({ v: 1, fact: name, ...draft.data }, format)
      expect(decodeFact(raw(path, other, `${CONTENT_TYPE[format]}; charset=utf-8`))).toEqual(expected)
    },
  )

  it('is refused when a newer FlowStone wrote it, when it is something else, and when its body is none', () => {
    expect(codeOf(() => decodeFact(raw(path, encodeJson({ v: 2, fact: name, ...draft.data }))))).toBe('newer_version')
    expect(codeOf(() => decodeFact(raw(path, encodeJson([1]))))).toBe('bad_fact')
    expect(codeOf(() => decodeFact(raw(path, encodeJson(null))))).toBe('bad_fact')
    expect(codeOf(() => decodeFact(raw(path, new TextEncoder().encode('{'))))).toBe('undecodable')
    expect(codeOf(() => decodeFact(raw(path, new Uint8Array([0x81]), CONTENT_TYPE.msgpack)))).toBe('undecodable')
    expect(codeOf(() => decodeFact(raw(path, new Uint8Array([0xff, 0xfe]))))).toBe('undecodable')
  })
})

describe('paths', () => {
  it.each([
    '',
    'run',
    'run.x',
    'run.x.done',
    'asset.p.a.r.end.gone',
    'asset.p.a.r.started',
    'asset.a.r.end.failed',
    'scatter.r.a.items',
    'gate.1.created',
    'a.b.c.d.e.f',
  ])('“%s” is no fact', (path) => {
    expect(parsePath(path)).toBeUndefined()
    expect(codeOf(() => decodeFact(raw(path, encodeJson({}))))).toBe('unknown_fact')
  })

  it('name the id that lacks', () => {
    expect(() => factPath('asset.started', { pipeline: 'p', asset: 'a', run })).toThrow(
      /asset.started lacks id :attempt/,
    )
  })

  it('of the four ends of an asset expect the same place to be free', () => {
    const ends = ['asset.materialized', 'asset.failed', 'asset.skipped', 'asset.cancelled'] as const
    expect(new Set(ends.map((name) => expectationPath(factPath(name, { pipeline: 'p', asset: 'a', run })))).size).toBe(
      1,
    )
  })

  it('of all facts but those that may occur again hold one message', () => {
    expect(factNames().filter(isRepeatable)).toEqual([
      'pipeline.registered',
      'run.adopt_requested',
      'gate.timer_fired',
      'gate.correlated',
      'scatter.outcomes',
      'scatter.paused',
      'scatter.resumed',
      'event.timer_fired',
      'schedule.paused',
      'schedule.resumed',
      'sensor.paused',
      'sensor.resumed',
    ])
  })
})

describe('a body that does not fit', () => {
  it('is a bad_fact whose message names fact, sequence and field', () => {
    const bad = raw('scatter.0-r1.a.sized', encodeJson({ v: 1, fact: 'scatter.sized', total: -1 }))
    expect(() => decodeFact(bad)).toThrow(/scatter.sized at 5: total /)
    expect(codeOf(() => decodeFact(bad))).toBe('bad_fact')
  })

  it('that does not say what it is, or is of another run, is none: the server sends to any subject that somebody names as where to reply', () => {
    const acknowledgement = raw('run.0-r1.cancel_requested', encodeJson({ stream: 'ns_TRIGGERS', seq: 9 }))
    expect(codeOf(() => decodeFact(acknowledgement))).toBe('bad_fact')
    const sent = encodeFact(drafts['run.finished'])
    const other = { ...raw('run.0-r1.cancel_requested', sent.payload), contentType: sent.contentType }
    expect(codeOf(() => decodeFact(other))).toBe('bad_fact')
    const moved = { ...other, path: factPath('run.finished', { run: '0-another' }) }
    expect(() => decodeFact(moved)).toThrow(/is of run 0-another by its subject, and of another one by its body/)
  })
})

describe('items that were written before readers had cursors', () => {
  it('are read as they were', () => {
    const { ids, data } = drafts['scatter.items']
    const { cursor: _, ...old } = data
    const raw = {
      payload: encode({ v: 1, fact: 'scatter.items', ...old }, 'msgpack'),
      contentType: CONTENT_TYPE.msgpack,
      shard: 0,
      seq: 1,
      timeMs: 1,
    }
    expect(decodeFact({ ...raw, path: factPath('scatter.items', ids) }).data).toEqual(old)
  })
})

describe('upcasters', () => {
  const table = {
    'scatter.sized': {
      path: FACTS['scatter.sized'].path,
      format: 'json',
      version: 3,
      schema: z.object({ total: z.int(), unit: z.string() }),
      upcasters: {
        1: (body: Record<string, unknown>) => ({ total: body.count }),
        2: (body: Record<string, unknown>) => ({ ...body, unit: 'instances' }),
      },
    },
  } as const
  const at = (body: Record<string, unknown>) =>
    raw('scatter.0-r1.a.sized', encodeJson({ fact: 'scatter.sized', ...body }))

  it.each([[{ v: 1, count: 3 }], [{ v: 2, total: 3 }], [{ v: 3, total: 3, unit: 'instances' }]])(
    'raise %j to what today’s folds read',
    (body) => {
      expect(decodeFact(at(body), table).data).toEqual({ total: 3, unit: 'instances' })
    },
  )

  it('that lack are told, and a version above today’s is not guessed at', () => {
    const gap = {
      'scatter.sized': { ...table['scatter.sized'], upcasters: { 1: table['scatter.sized'].upcasters[1] } },
    }
    expect(() => decodeFact(at({ v: 1, count: 3 }), gap)).toThrow(/scatter.sized has no upcaster from version 2/)
    expect(codeOf(() => decodeFact(at({ v: 4 }), table))).toBe('newer_version')
    expect(codeOf(() => decodeFact(raw('run.0-r1.planned', encodeJson({})), table))).toBe('unknown_fact')
  })
})

describe('stored values', () => {
  it.each([
    [{ json: null }],
    [{ json: { msgpack: 'x' } }],
    [{ msgpack: 'wA==' }],
    [{ manager: 's3', ref: { bucket: 'b', key: 'k' } }],
  ])('%j is read as what it is', (value) => {
    const data = { ...drafts['asset.materialized'].data, value }
    const { payload, contentType } = encodeFact({ ...drafts['asset.materialized'], data })
    expect(decodeFact(raw('asset.p.a.0-r1.end.materialized', payload, contentType)).data).toMatchObject({ value })
  })
})
