import fc from 'fast-check'
import { expect, it } from 'vitest'
import { inOrder, placesOf } from '../../src/log/in-order.ts'
import type { SealedFact } from '../../streams/history.ts'
import { collect } from '../kit/collect.ts'
import { runs } from '../kit/runs.ts'

const fact = (seq: number): SealedFact => ({
  path: `run.0-x.fact.${seq}`,
  seq,
  timeMs: seq,
  contentType: undefined,
  payload: new Uint8Array(),
})

it('facts come in order and once, however they are spread over packs', async () => {
  const seqs = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 12 })
  await fc.assert(
    fc.asyncProperty(fc.array(seqs, { maxLength: 6 }), fc.integer({ min: 0, max: 40 }), async (packs, after) => {
      const read = async (n: number): Promise<SealedFact[]> => (packs[n] ?? []).map(fact)
      const places = await placesOf([...packs.keys()], read)
      const found = (await collect(inOrder(places, read, after))).map(({ seq }) => seq)
      const wanted = [...new Set(packs.flat())].filter((seq) => seq > after).toSorted((a, b) => a - b)
      expect(found).toEqual(wanted)
    }),
    runs(200),
  )
})

it('packs that do not overlap are in memory one at a time, and those before are not read', async () => {
  const packs = [
    [1, 2],
    [9, 10],
    [3, 4],
    [5, 6],
    [7, 8],
  ]
  const events: string[] = []
  const read = async (n: number): Promise<SealedFact[]> => {
    events.push(`pack ${n}`)
    return (packs[n] ?? []).map(fact)
  }
  const places = await placesOf([...packs.keys()], read)
  events.length = 0
  for await (const { seq } of inOrder(places, read, 4)) events.push(`${seq}`)
  expect(events).toEqual(['pack 3', '5', '6', 'pack 4', '7', '8', 'pack 1', '9', '10'])
})
