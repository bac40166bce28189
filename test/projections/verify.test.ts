import { describe, expect, it } from 'vitest'
import type { RunState } from '../../projections/state.ts'
import { comparable, differences, runOfKey } from '../../projections/verify/diff.ts'
import { proofsOf, referencesIn } from '../../projections/verify/proofs.ts'
import type { Fact } from '../../streams/facts.ts'
import { runId } from '../../streams/ids.ts'

describe('differences of two documents', () => {
  it('name the field, what is expected and what is found', () => {
    const expected = { status: 'running', assets: { a: { attempt: 1 }, b: { attempt: 2 } }, list: [1, { x: 1 }] }
    const found = { list: [1, { x: 2 }, 3], assets: { a: { attempt: 1 }, b: { attempt: 3 } }, more: true }
    expect(differences(expected, found)).toEqual([
      { field: 'status', expected: 'running', found: undefined },
      { field: 'assets.b.attempt', expected: 2, found: 3 },
      { field: 'list[1].x', expected: 1, found: 2 },
      { field: 'list[2]', expected: undefined, found: 3 },
      { field: 'more', expected: undefined, found: true },
    ])
    expect(differences(expected, found, 2)).toHaveLength(2)
  })

  it('are none where only the order of members differs, or a member is undefined', () => {
    expect(differences({ a: 1, b: { c: 1, d: undefined } }, { b: { c: 1 }, a: 1 })).toEqual([])
    expect(differences([], {})).toEqual([{ field: '', expected: [], found: {} }])
    expect(differences(undefined, null)).toHaveLength(1)
  })

  it('name the first byte that is another one', () => {
    const found = new Uint8Array([1, 2, 4])
    expect(differences(new Uint8Array([1, 2, 3]), found)).toEqual([{ field: '[byte 2]', expected: 3, found: 4 }])
    expect(differences(new Uint8Array([1]), new Uint8Array([1]))).toEqual([])
    expect(differences(new Uint8Array([1]), undefined)).toHaveLength(1)
  })

  it('leave out what lists of the base show besides', () => {
    const shown = [['0-a', 1, { id: '0-a' }]]
    expect(comparable('runs.x.0', shown)).toEqual([['0-a', 1]])
    expect(comparable('runs.x', { of: 'all', pages: 0, runs: shown })).toEqual({
      of: 'all',
      pages: 0,
      runs: [['0-a', 1]],
    })
    expect(comparable('run.x', shown)).toBe(shown)
    expect(comparable('runs.x', 'no list')).toBe('no list')
  })
})

it.each([
  ['run.0-a', '0-a'],
  ['gates.0-a.asset.Ra1n0', '0-a'],
  ['waiting.000.001.0-a.asset.Ra1n0', '0-a'],
  ['asset.p.a._', undefined],
  ['runs.abc', undefined],
])('the run of document %s is %s', (key, run) => {
  expect(runOfKey(key)).toBe(run)
})

describe('what a document proves', () => {
  const id = runId(0, 'a')
  const asset = { phase: 'execute', attempt: 1, failures: 0 } as const
  const run: RunState = {
    seq: 9,
    id,
    pipeline: 'p',
    version: 'v',
    target: 'made',
    upstream: 'all',
    status: 'succeeded',
    requestedMs: 1,
    finishedMs: 2,
    assets: {
      made: { ...asset, status: 'materialized', value: { shard: 0, seq: 7 } },
      taken: { ...asset, status: 'reused', value: { shard: 0, seq: 3 } },
      given: { ...asset, status: 'given' },
      left: { ...asset, status: 'skipped' },
    },
  }

  it('is the request, the end, and the end of each asset that it made', () => {
    expect(proofsOf(`run.${id}`, run, 0)).toEqual({
      paths: [
        `run.${id}.requested`,
        `run.${id}.finished`,
        `asset.p.made.${id}.end.materialized`,
        `asset.p.left.${id}.end.skipped`,
      ],
      seqs: [
        { field: 'seq', seq: 9 },
        { field: 'assets.made.value.seq', seq: 7 },
      ],
    })
  })

  it('is each key chunk, and the facts of each gate', () => {
    expect(
      proofsOf(
        `key_chunks.${id}.many.0`,
        {
          seq: 1,
          keyChunks: [
            [0, 5],
            [5, 5],
          ],
        },
        0,
      ).paths,
    ).toEqual([`scatter.${id}.many.items.0`, `scatter.${id}.many.items.5`])
    const gate = { seq: 4, run: id, asset: 'asks', gate: 'a1n1', kind: 'run', status: 'signaled', resolvedSeq: 6 }
    const { paths, seqs } = proofsOf(`gates.${id}.asks.Ra1n0`, { gates: { a1n1: gate } }, 0)
    expect(paths).toEqual([`gate.${id}.asks.a1n1.child_requested`, `gate.${id}.asks.a1n1.resolved`])
    expect(seqs.map(({ seq }) => seq)).toEqual([4, 6])
  })

  it('is nothing where it is no document of ours', () => {
    for (const doc of [undefined, null, 'text', new Uint8Array(1), {}, { gates: 1 }])
      for (const kind of ['run', 'barrier', 'gates', 'asset', 'other'])
        expect(() => proofsOf(`${kind}.x.y.z`, doc, 0)).not.toThrow()
  })
})

it('values that a fact names are found, but not what a user gave', () => {
  const ref = (hash: string) => ({ manager: 'nats', ref: { hash } })
  const data = {
    input: { a: ref('1'), b: { json: ref('2') }, c: { manager: 's3', ref: { hash: '3' } } },
    metadata: ref('4'),
    refs: [
      [0, ref('5')],
      [1, ref('6')],
    ],
    at: [0, 1, 2],
  }
  const found = referencesIn({ data } as unknown as Fact, 'nats')
  expect(found.map(({ hash }) => hash)).toEqual(['1', '5', '6'])
})
