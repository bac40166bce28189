import { generateKeyPairSync } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type CheckOptions, ProofCheck } from '../../projections/proof/check.ts'
import type { ProofProblem, ProofReport } from '../../projections/proof/findings.ts'
import { LeftByRule } from '../../projections/proof/left.ts'
import type { SealedFact } from '../../streams/history.ts'
import {
  decodeBlock,
  decodeDetail,
  encodeBlock,
  encodeDetail,
  LEAF_BYTES,
  type LeftRecord,
  leafOf,
  rootOf,
  sha256,
} from '../../streams/proof.ts'
import { newProofKey, type ProofKey, parseProofKey, parsePublicKey } from '../../streams/proof-keys.ts'
import { runs } from '../kit/runs.ts'

const NS = 'ns'
const LOG = '2026-01-01T00:00:00Z'

interface Stored {
  head: Uint8Array
  detail: Uint8Array | undefined
}

interface Piece {
  readonly facts: readonly SealedFact[]
  readonly to: number
  readonly from?: number
  readonly left?: readonly LeftRecord[]
  readonly log?: string
  readonly key?: ProofKey | undefined
}

/** Blocks as the engine makes them. */
async function chain(pieces: readonly Piece[], key?: ProofKey): Promise<Stored[]> {
  const blocks: Stored[] = []
  let [prev, to] = ['', 0]
  for (const [n, piece] of pieces.entries()) {
    const leaves = piece.facts.map(leafOf)
    const detail =
      leaves.length === 0
        ? undefined
        : await encodeDetail({
            seqs: piece.facts.map(({ seq }) => seq),
            paths: piece.facts.map(({ path }) => path),
            leaves: Buffer.concat(leaves.map((leaf) => leaf.subarray(0, LEAF_BYTES))),
          })
    const head = {
      ns: NS,
      shard: 0,
      log: piece.log ?? LOG,
      n,
      prev,
      from: piece.from ?? to + 1,
      to: piece.to,
      count: leaves.length,
      root: rootOf(leaves).toString('hex'),
      detail: detail ? sha256(detail) : '',
      atMs: 1000 + n,
    }
    const { payload, hash } = await encodeBlock(head, piece.left ?? [], 'key' in piece ? piece.key : key)
    blocks.push({ head: payload, detail })
    prev = hash
    to = piece.to
  }
  return blocks
}

function checked(
  blocks: readonly Stored[],
  facts: readonly SealedFact[],
  options: Partial<CheckOptions> = {},
): ProofReport {
  const check = new ProofCheck({ ns: NS, shard: 0, log: LOG, ...options })
  for (const { head, detail } of blocks) check.block(head, detail)
  for (const fact of facts) check.fact(fact)
  return check.end()
}

const problems = ({ findings }: ProofReport): ProofProblem[] => findings.map(({ problem }) => problem)

const PATHS = [
  (i: number): string => `run.0-${i}.requested`,
  (i: number): string => `asset.p.a.0-${i}.end.materialized`,
  (i: number): string => `scatter.0-${i}.a.outcomes`,
  (i: number): string => `trigger.t${i}.received`,
]

/** Every third sequence is one of a schedule, which is no fact. */
function logOf(count: number): SealedFact[] {
  return Array.from({ length: count }, (_, i) => ({
    path: PATHS[i % PATHS.length]?.(i) ?? '',
    seq: 1 + i + Math.floor(i / 2),
    timeMs: 1_700_000_000_000 + i,
    contentType: i % 3 === 0 ? 'application/msgpack' : 'application/json',
    payload: Buffer.from(JSON.stringify({ v: 1, i, text: 'x'.repeat(i % 50) })),
  }))
}

function pieces(facts: readonly SealedFact[], size: number): Piece[] {
  const made: Piece[] = []
  for (let i = 0; i < facts.length; i += size) {
    const some = facts.slice(i, i + size)
    made.push({ facts: some, to: some.at(-1)?.seq ?? 0 })
  }
  return made
}

/** A change of one fact, and the sequence at which it must be found. */
type Mutation = (facts: readonly SealedFact[], i: number, random: number) => { facts: SealedFact[]; seq: number }

const at = (facts: readonly SealedFact[], i: number, change: (fact: SealedFact) => Partial<SealedFact>): SealedFact[] =>
  facts.map((fact, k) => (k === i ? { ...fact, ...change(fact) } : fact))

const MUTATIONS: Readonly<Record<string, Mutation>> = {
  'a byte': (facts, i, random) => ({
    facts: at(facts, i, ({ payload }) => {
      const bytes = Uint8Array.from(payload)
      const k = random % bytes.length
      bytes[k] = (bytes[k] ?? 0) ^ (1 << (random % 8))
      return { payload: bytes }
    }),
    seq: facts[i]?.seq ?? 0,
  }),
  'the time': (facts, i, random) => ({
    facts: at(facts, i, ({ timeMs }) => ({ timeMs: timeMs + 1 + (random % 1000) })),
    seq: facts[i]?.seq ?? 0,
  }),
  'the type': (facts, i) => ({
    facts: at(facts, i, () => ({ contentType: undefined })),
    seq: facts[i]?.seq ?? 0,
  }),
  'the subject': (facts, i) => ({
    facts: at(facts, i, ({ path }) => ({ path: `${path}x` })),
    seq: facts[i]?.seq ?? 0,
  }),
  removed: (facts, i) => ({ facts: facts.filter((_, k) => k !== i), seq: facts[i]?.seq ?? 0 }),
  swapped: (facts, i, random) => {
    const k = (i + 1 + (random % (facts.length - 1))) % facts.length
    const [a, b] = [facts[i], facts[k]]
    if (!a || !b) throw new Error('no such fact')
    return {
      facts: facts.map((fact, n) => (n === i ? { ...b, seq: a.seq } : n === k ? { ...a, seq: b.seq } : fact)),
      seq: a.seq,
    }
  },
  // At a sequence that a schedule had.
  inserted: (facts, i) => {
    const k = i % 2 === 1 ? i : i === 0 ? 1 : i - 1
    const fact = facts[k]
    if (!fact || k === facts.length - 1) return { facts: facts.slice(0, -1), seq: facts.at(-1)?.seq ?? 0 }
    return { facts: [...facts, { ...fact, seq: fact.seq + 1 }], seq: fact.seq + 1 }
  },
}

describe('a proof', () => {
  const facts = logOf(90)
  const kinds = Object.entries(MUTATIONS)

  it('finds each of 1,000 single changes of a log, and names the fact', async () => {
    const blocks = await chain(pieces(facts, 16))
    expect(checked(blocks, facts)).toMatchObject({ problems: 0, intact: 90, facts: 90, left: 0 })
    for (let k = 0; k < 1000; k++) {
      const [name, mutate] = kinds[k % kinds.length] ?? []
      const mutated = mutate?.(facts, (k * 397) % facts.length, k * 7919)
      const { findings } = checked(blocks, mutated?.facts ?? [])
      expect(
        findings.map(({ seq }) => seq),
        `${name}, ${k}`,
      ).toContain(mutated?.seq)
      expect(findings.length, `${name}, ${k}`).toBe(name === 'swapped' ? 2 : 1)
    }
  })

  it('finds any change in any log, cut into any blocks, wherever its facts are by now', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 2, max: 60 }),
        fc.integer({ min: 1, max: 40 }),
        fc.constantFrom(...kinds.map(([name]) => name)),
        fc.nat(10_000),
        fc.nat(10_000),
        async (count, size, kind, where, random) => {
          const log = logOf(count)
          const blocks = await chain(pieces(log, size))
          // In any order: some are in the history, some in both.
          const shuffled = log.toSorted((a, b) => ((a.seq * random) % 17) - ((b.seq * random) % 17))
          expect(checked(blocks, [...shuffled, ...log.slice(0, 3)]).problems).toBe(0)
          const mutated = MUTATIONS[kind]?.(log, where % count, random)
          expect(checked(blocks, mutated?.facts ?? []).findings.map(({ seq }) => seq)).toContain(mutated?.seq)
        },
      ),
      runs(60),
    )
  })

  it('tells facts that left by rule from facts that somebody took away', async () => {
    const log = logOf(40)
    const gone = log.filter(({ path, seq }) => path.startsWith('trigger.') && seq <= 30)
    const pruned = log.filter(({ seq }) => seq >= 40 && seq <= 44)
    const left: LeftRecord[] = [
      { why: 'folded', path: 'trigger.*.received', upTo: 30 },
      { why: 'pruned', seqs: [[40, 44]] },
    ]
    const blocks = await chain([...pieces(log, 16), { facts: [], to: log.at(-1)?.seq ?? 0, left }])
    const rest = log.filter((fact) => !gone.includes(fact) && !pruned.includes(fact))
    expect(checked(blocks, rest)).toMatchObject({ problems: 0, left: gone.length + pruned.length })
    const later = log.find(({ path, seq }) => path.startsWith('trigger.') && seq > 30)
    const without = checked(
      blocks,
      rest.filter((fact) => fact !== later),
    )
    expect(without.findings).toMatchObject([{ problem: 'fact_removed', seq: later?.seq, path: later?.path }])
    // Without the record, each of them was removed.
    expect(checked(blocks.slice(0, -1), rest).problems).toBe(gone.length + pruned.length)
  })

  it('takes any number of facts that left in pieces', () => {
    const left = new LeftByRule()
    const seqs = Array.from({ length: 700_000 }, (_, i) => [2 * i + 1, 2 * i + 1] as const)
    left.add({ why: 'pruned', seqs })
    expect([1, 2, 1_399_999, 1_400_001].map((seq) => left.has(seq, 'run.0-a.requested'))).toEqual([
      true,
      false,
      true,
      false,
    ])
  })

  it('says which block was changed, removed, moved or made anew', async () => {
    const log = logOf(40)
    const blocks = await chain(pieces(log, 10))
    const [first, second, third, fourth] = blocks
    if (!first || !second || !third || !fourth) throw new Error('too few blocks')
    expect(problems(checked([first, third, fourth], log))).toContain('block_missing')
    expect(problems(checked([second, third, fourth], log))).toContain('block_missing')
    expect(problems(checked([first, third, second, fourth], log))).toContain('block_missing')
    expect(problems(checked([], log))).toEqual(['no_proof'])
    // A block of another fact, whose own hashes fit.
    const other = log.map((fact) => (fact.seq === 2 ? { ...fact, timeMs: 5 } : fact))
    const [forged] = await chain(pieces(other, 10))
    expect(problems(checked([forged ?? first, second, third, fourth], other))).toEqual(['chain_broken'])
    expect(problems(checked([{ ...first, detail: second.detail }, second, third, fourth], log))).toContain(
      'detail_changed',
    )
    const broken = Uint8Array.from(first.head)
    broken[20] = (broken[20] ?? 0) ^ 1
    expect(checked([{ ...first, head: broken }, second, third, fourth], log).problems).toBeGreaterThan(0)
  })

  it('checks a block without its list of facts by its root', async () => {
    const log = logOf(20)
    const blocks = (await chain(pieces(log, 10))).map(({ head }) => ({ head, detail: undefined }))
    expect(checked(blocks, log)).toMatchObject({ problems: 0, intact: 20 })
    expect(problems(checked(blocks, log.slice(1)))).toEqual(['facts_differ'])
  })

  it('says where the log was replaced or set back, and what nobody has proven', async () => {
    const log = logOf(20)
    const [one, two] = [log.slice(0, 10), log.slice(10)]
    const to = one.at(-1)?.seq ?? 0
    const end = two.at(-1)?.seq ?? 0
    const replaced = await chain([
      { facts: one, to },
      { facts: two, to: end, log: 'later' },
    ])
    expect(problems(checked(replaced, log, { log: 'later' }))).toEqual(['log_replaced'])
    expect(problems(checked(replaced.slice(0, 1), one, { log: 'later' }))).toEqual(['log_replaced'])
    const setBack = await chain([
      { facts: log, to: end },
      { facts: two, from: to + 1, to: end },
    ])
    expect(problems(checked(setBack, log))).toEqual(['log_set_back'])
    const gap = await chain([
      { facts: one.slice(0, 5), to: 7 },
      { facts: two, from: to + 1, to: end },
    ])
    expect(checked(gap, log)).toMatchObject({ problems: 0, gaps: [{ from: 8, to }], uncovered: 5 })
    const next = {
      path: 'run.0-z.requested',
      seq: end + 1,
      timeMs: 1,
      contentType: undefined,
      payload: new Uint8Array(),
    }
    expect(checked(gap, [...log, next]).newer).toBe(1)
  })
})

describe('signatures of a proof', () => {
  const [mine, old, other] = [newKey(), newKey(), newKey()]
  const log = logOf(30)

  it('count when they are of a key that is trusted, also behind a change of keys', async () => {
    const parts = pieces(log, 10)
    const blocks = await chain(parts.map((piece, i) => ({ ...piece, key: i === 0 ? old : mine })))
    const keys = [mine.publicKey, old.publicKey]
    expect(checked(blocks, log, { keys })).toMatchObject({
      problems: 0,
      signedTo: 2,
      keys: [old.publicKey, mine.publicKey],
    })
    expect(checked(blocks, log)).toMatchObject({ problems: 0, signedTo: 2 })
    expect(problems(checked(blocks, log, { keys: [mine.publicKey] }))).toEqual(['unknown_key'])
  })

  it('show a chain that was made anew without the key', async () => {
    const forged = log.map((fact) => (fact.seq === 2 ? { ...fact, timeMs: 5 } : fact))
    expect(problems(checked(await chain(pieces(forged, 10)), forged, { keys: [mine.publicKey] }))).toEqual([
      'not_signed',
    ])
    expect(problems(checked(await chain(pieces(forged, 10), other), forged, { keys: [mine.publicKey] }))).toEqual([
      'unknown_key',
      'unknown_key',
      'unknown_key',
      'not_signed',
    ])
    const parts = pieces(log, 10)
    const tail = await chain(parts.map((piece, i) => ({ ...piece, key: i < 2 ? mine : undefined })))
    expect(problems(checked(tail, log))).toEqual(['not_signed'])
  })

  it('do not hold for a block that was changed', async () => {
    const [block] = await chain([{ facts: log, to: 50 }], mine)
    const text = Buffer.from(block?.head ?? []).toString('latin1')
    const head = Buffer.from(text.replace('"to":50', '"to":51'), 'latin1')
    expect(problems(checked([{ head, detail: block?.detail }], log))).toContain('bad_signature')
  })

  it('are not needed to find that the end was cut off, for who keeps a checkpoint', async () => {
    const blocks = await chain(pieces(log, 10))
    const { hash } = decodeBlock(blocks[2]?.head ?? new Uint8Array())
    const checkpoints = [{ ns: NS, shard: 0, n: 2, hash }]
    expect(checked(blocks, log, { checkpoints }).problems).toBe(0)
    expect(problems(checked(blocks.slice(0, 2), log.slice(0, 20), { checkpoints }))).toEqual(['checkpoint_missing'])
    const anew = await chain(pieces(log.slice(0, 29), 10))
    expect(problems(checked(anew, log.slice(0, 29), { checkpoints }))).toEqual(['checkpoint_differs'])
  })

  it('need an Ed25519 key, and errors do not repeat it', () => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey.export({ type: 'pkcs8', format: 'pem' })
    expect(() => parseProofKey('FLOWSTONE_PROOF_KEY', rsa.toString())).toThrow(
      /FLOWSTONE_PROOF_KEY is a key of type rsa/,
    )
    expect(() => parseProofKey('FLOWSTONE_PROOF_KEY', 'secret')).toThrow(/^(?!.*secret).*is no private key in PEM/)
    expect(parsePublicKey('--key', `${mine.publicKey}\n`)).toBe(mine.publicKey)
    expect(() => parsePublicKey('--key', 'abc')).toThrow('--key must be an Ed25519 public key')
  })
})

describe('a detail of a block', () => {
  it('comes back as it was', async () => {
    const leaves = Buffer.alloc(2 * LEAF_BYTES, 7)
    const detail = { seqs: [5, 9], paths: ['run.0-a.requested', 'run.0-a.finished'], leaves }
    const read = decodeDetail(await encodeDetail(detail))
    expect({ ...read, leaves: Buffer.from(read.leaves) }).toEqual(detail)
  })

  it('is refused when it is damaged', async () => {
    const bytes = await encodeDetail({ seqs: [5], paths: ['a'], leaves: new Uint8Array(3) })
    expect(() => decodeDetail(bytes)).toThrow('a detail of the proof is damaged')
    expect(() => decodeDetail(Buffer.from('no'))).toThrow('a detail of the proof is damaged')
  })
})

function newKey(): ProofKey {
  return parseProofKey('a key', newProofKey())
}
