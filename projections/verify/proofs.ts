/**
 * What a document of the state says must stand on the log, or in the history. These are facts that
 * occur once, by their paths, and facts that it refers to by their sequence.
 */
import { type Fact, factPath } from '../../streams/facts.ts'
import { assetName, type RunId } from '../../streams/ids.ts'
import type { BarrierState, KeyChunkList } from '../scatter/state.ts'
import type { AssetInRun, CatalogEntry, ConcurrencyState, GateRow, GateState, NewestState, RunState } from '../state.ts'

export interface Proofs {
  /** Paths of facts. */
  readonly paths: readonly string[]
  /** Sequences of facts, with the field that names them. */
  readonly seqs: readonly { readonly field: string; readonly seq: number }[]
}

const NONE: Proofs = { paths: [], seqs: [] }

/**
 * `shard`: that of the document. References to other shards are not looked at. A document that is
 * none of ours proves nothing.
 */
export function proofsOf(key: string, doc: unknown, shard: number): Proofs {
  try {
    return proofsIn(key, doc, shard)
  } catch {
    return NONE
  }
}

function proofsIn(key: string, doc: unknown, shard: number): Proofs {
  if (typeof doc !== 'object' || doc === null || doc instanceof Uint8Array) return NONE
  const [kind, run = '', asset = ''] = key.split('.')
  switch (kind) {
    case 'run':
      return ofRun(doc as RunState, shard)
    case 'barrier':
      return ofBarrier(doc as BarrierState)
    case 'key_chunks':
      return ofKeyChunks(doc as KeyChunkList, run, asset)
    case 'gates':
      return joined(Object.values((doc as GateRow).gates).map(ofGate))
    case 'gate':
      return ofGate(doc as GateState)
    case 'asset':
      return { paths: [], seqs: ofValue('value', (doc as CatalogEntry).value, shard) }
    case 'newest':
    case 'concurrency':
      return { paths: [], seqs: [{ field: 'seq', seq: (doc as NewestState | ConcurrencyState).seq }] }
    default:
      return NONE
  }
}

function ofRun(run: RunState, shard: number): Proofs {
  const of = { run: run.id }
  const paths = [factPath('run.requested', of)]
  if (run.finishedMs !== undefined) paths.push(factPath('run.finished', of))
  const seqs = [{ field: 'seq', seq: run.seq }]
  for (const [name, asset] of Object.entries(run.assets)) {
    const end = endOf(run.pipeline, run.id, name, asset)
    if (end !== undefined) paths.push(end)
    // What it took from another run is that one's.
    if (end !== undefined) seqs.push(...ofValue(`assets.${name}.value`, asset.value, shard))
    if (asset.resume) seqs.push({ field: `assets.${name}.resume.seq`, seq: asset.resume.seq })
  }
  return { paths, seqs }
}

const ENDS = {
  materialized: 'asset.materialized',
  failed: 'asset.failed',
  skipped: 'asset.skipped',
  cancelled: 'asset.cancelled',
} as const

function endOf(pipeline: string, run: RunId, name: string, { status }: AssetInRun): string | undefined {
  const end = ENDS[status as keyof typeof ENDS]
  return end && factPath(end, { pipeline, asset: name, run })
}

function ofBarrier({ run, asset: name, seq, total, closedMs }: BarrierState): Proofs {
  const of = { run, asset: assetName(name) }
  return {
    paths: [
      factPath('scatter.started', of),
      ...(total === undefined ? [] : [factPath('scatter.sized', of)]),
      ...(closedMs === undefined ? [] : [factPath('scatter.closed', of)]),
    ],
    seqs: [{ field: 'seq', seq }],
  }
}

function ofKeyChunks({ keyChunks }: KeyChunkList, run: string, asset: string): Proofs {
  return {
    paths: keyChunks.map(([offset]) => factPath('scatter.items', { run, asset, offset: String(offset) })),
    seqs: [],
  }
}

function ofGate(gate: GateState): Proofs {
  const of = { run: gate.run, asset: assetName(gate.asset), gate: gate.gate }
  return {
    paths: [
      factPath(gate.kind === 'run' ? 'child.requested' : 'gate.created', of),
      ...(gate.status === 'waiting' ? [] : [factPath('gate.resolved', of)]),
    ],
    seqs: [
      { field: `gates.${gate.gate}.seq`, seq: gate.seq },
      ...(gate.resolvedSeq === undefined ? [] : [{ field: `gates.${gate.gate}.resolvedSeq`, seq: gate.resolvedSeq }]),
    ],
  }
}

function ofValue(field: string, value: AssetInRun['value'], shard: number): Proofs['seqs'] {
  return value?.shard === shard ? [{ field: `${field}.seq`, seq: value.seq }] : []
}

function joined(all: readonly Proofs[]): Proofs {
  return { paths: all.flatMap(({ paths }) => paths), seqs: all.flatMap(({ seqs }) => seqs) }
}

/** Values that a fact names, and an I/O manager holds. */
export function referencesIn(fact: Fact, manager: string): Readonly<Record<string, unknown>>[] {
  const found: Readonly<Record<string, unknown>>[] = []
  collect(fact.data, manager, found, 0)
  return found
}

const DEPTH_MAX = 12
/** What a user gave as it is: it names nothing of ours, whatever it looks like. */
const OF_USERS: ReadonlySet<string> = new Set(['json', 'metadata', 'tags', 'headers'])

function collect(value: unknown, manager: string, found: Readonly<Record<string, unknown>>[], depth: number): void {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array || depth > DEPTH_MAX) return
  if (Array.isArray(value)) {
    // Columns of a scatter are numbers, and many.
    if (typeof value[0] === 'number' && typeof value[1] !== 'object') return
    for (const item of value) collect(item, manager, found, depth + 1)
    return
  }
  const ref: unknown = Reflect.get(value, 'ref')
  if (Reflect.get(value, 'manager') === manager && typeof ref === 'object' && ref !== null) {
    found.push(ref as Record<string, unknown>)
    return
  }
  for (const [name, inner] of Object.entries(value)) if (!OF_USERS.has(name)) collect(inner, manager, found, depth + 1)
}
