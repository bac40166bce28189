/**
 * The blocks of a proof in a file, and archives that are checked by it: without a server.
 */
import { ProofCheck } from '../../../projections/proof/check.ts'
import type { ProofCheckpoint, ProofReport } from '../../../projections/proof/findings.ts'
import { runOfPath } from '../../../projections/proof/left.ts'
import { type ArchiveRecord, factIn, headIn } from '../../../streams/archive.ts'
import { FlowStoneError, InvalidError, messageOf } from '../../../streams/errors.ts'
import { parsePath } from '../../../streams/facts.ts'
import { decodeDetail } from '../../../streams/proof.ts'
import {
  type ProofFileHead,
  proofBlockIn,
  proofBlockLine,
  proofHeadIn,
  proofHeadLine,
} from '../../../streams/proof-file.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { ByteSource } from '../../items/byte-source.ts'
import type { Connection } from '../../log/connection.ts'
import { checkLines } from '../archive/ending.ts'
import { linesOf, recordsOf } from '../archive/read.ts'
import type { Sink } from '../archive/sink.ts'
import { compressed } from '../archive/write.ts'
import { blocksOf } from './verify.ts'

const PIECE_BYTES = 64 * 1024

interface ProofSource {
  readonly connection: Connection
  readonly names: Names
  readonly shards: number
}

const ADVICE = 'end the name in .jsonl or .proof, or behind that in .gz or .zst'

/** Throws InvalidError for a place whose name says that it has something else. */
export function checkProofName(at: string, name: string): void {
  checkLines(at, name, ADVICE, ['proof'])
}

/** Writes all blocks of all shards, packed as the name says. Returns how many. */
export async function exportProof(source: ProofSource, name: string, sink: Sink): Promise<number> {
  const tally = { blocks: 0 }
  try {
    for await (const piece of compressed(name, blockLines(source, tally))) await sink.write(piece)
    await sink.commit()
  } catch (error) {
    await sink.abort()
    throw error
  }
  return tally.blocks
}

async function* blockLines(
  { connection, names, shards }: ProofSource,
  tally: { blocks: number },
): AsyncGenerator<Uint8Array> {
  let held = proofHeadLine({ namespace: names.ns, shards })
  for (let shard = 0; shard < shards; shard++)
    for await (const block of blocksOf({ connection, names, shard })) {
      held += proofBlockLine({ shard, head: block.head, ...(block.detail ? { detail: block.detail } : {}) })
      tally.blocks += 1
      if (held.length < PIECE_BYTES) continue
      yield Buffer.from(held)
      held = ''
    }
  yield Buffer.from(held)
}

export interface ArchiveCheckOptions {
  readonly archives: readonly ByteSource[]
  /** What `exportProof` wrote, later than the archives. */
  readonly blocks: ByteSource
  readonly keys: readonly string[]
  readonly checkpoints: readonly ProofCheckpoint[]
}

/** What is known of a shard. */
interface Shard {
  readonly check: ProofCheck
  /** Where runs have ended, as their blocks say. */
  readonly ends: Map<string, number>
}

/**
 * Facts of archives, against blocks. Of a run that is in an archive all facts must be there, up to
 * its end. Throws `bad_archive` for a file that is none; a damaged line is a finding.
 */
export async function verifyArchives(options: ArchiveCheckOptions): Promise<ProofReport[]> {
  const { archives, blocks } = options
  const { head, shards } = await readBlocks(options)
  const runs = new Set<string>()
  const lasts = new Map<string, number>()
  const damaged: string[] = []
  for (const archive of archives) {
    try {
      for await (const record of recordsOf(archive)) readRecord(record, { head, shards, runs, lasts })
    } catch (error) {
      if (!(error instanceof FlowStoneError) || error.code !== 'bad_archive') throw error
      damaged.push(`${archive.name}: ${messageOf(error)}`)
    }
  }
  const reports = [...shards.values()].map(({ check, ends }) => {
    for (const why of damaged) check.archiveDamaged(why)
    // What comes behind the end of a run may have come behind the archive.
    return check.end((path, seq) => {
      const run = runOfPath(path)
      if (run === undefined || !runs.has(run) || !parsePath(path)) return false
      return seq <= (ends.get(run) ?? lasts.get(run) ?? 0)
    })
  })
  if (reports.length === 0) throw new InvalidError(`${blocks.name} has no block`)
  return reports
}

async function readBlocks({ blocks, keys, checkpoints }: ArchiveCheckOptions): Promise<{
  readonly head: ProofFileHead
  readonly shards: Map<number, Shard>
}> {
  let head: ProofFileHead | undefined
  const shards = new Map<number, Shard>()
  for await (const line of linesOf(blocks)) {
    if (!head) {
      head = proofHeadIn(blocks.name, line)
      for (let shard = 0; shard < head.shards; shard++) {
        const check = new ProofCheck({ ns: head.namespace, shard, keys, checkpoints, isArchive: true })
        shards.set(shard, { check, ends: new Map() })
      }
      continue
    }
    const block = proofBlockIn(blocks.name, line)
    const found = shards.get(block.shard)
    if (!found) throw new InvalidError(`${blocks.name} has a block of shard ${block.shard}, which its head lacks`)
    found.check.block(block.head, block.detail)
    if (block.detail) noteEnds(block.detail, found.ends)
  }
  if (!head) throw new InvalidError(`${blocks.name} is empty`)
  return { head, shards }
}

function noteEnds(packed: Uint8Array, ends: Map<string, number>): void {
  try {
    const { seqs, paths } = decodeDetail(packed)
    for (const [i, path] of paths.entries()) {
      const [, run] = /^run\.([^.]+)\.finished$/.exec(path) ?? []
      if (run !== undefined) ends.set(run, seqs[i] ?? 0)
    }
  } catch {
    // The check has said so.
  }
}

function readRecord(
  record: ArchiveRecord,
  of: {
    readonly head: ProofFileHead
    readonly shards: ReadonlyMap<number, Shard>
    readonly runs: Set<string>
    readonly lasts: Map<string, number>
  },
): void {
  if (record.kind === 'archive') {
    const { namespace } = headIn(record)
    if (namespace !== of.head.namespace)
      throw new InvalidError(`the archive is of namespace ${namespace}, and the proof of ${of.head.namespace}`)
    return
  }
  if (record.kind === 'position' || record.kind === 'document' || record.kind === 'blob') {
    if (record.kind === 'document' && record.run !== undefined) of.runs.add(record.run)
    return
  }
  const { shard, ...fact } = factIn(of.head.namespace, record)
  of.shards.get(shard)?.check.fact(fact)
  const run = runOfPath(fact.path)
  if (run === undefined || record.reference) return
  of.runs.add(run)
  of.lasts.set(run, Math.max(of.lasts.get(run) ?? 0, fact.seq))
}
