import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { CONTENT_TYPE, encode, encodeJson } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { decodeFact, encodeFact, FACTS, factNames, factPath, isRepeatable, parsePath } from '../../streams/facts.ts'
import { placeAt, placeOf } from '../../streams/places.ts'
import { namesOf } from '../../streams/subjects.ts'
import { drafts, run } from './fact-examples.ts'

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
      expect(placeAt(odd)).toBe(filter)
      expect(placeOf({ name, ids })).toBe(filter)
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
    expect(new Set(ends.map((name) => placeOf({ name, ids: { pipeline: 'p', asset: 'a', run } }))).size).toBe(1)
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
