/** Checks a log and its history against its proof: reads all of them, and writes nothing. */
import { ProofCheck } from '../../../projections/proof/check.ts'
import type { ProofCheckpoint, ProofReport } from '../../../projections/proof/findings.ts'
import { decodeBlock } from '../../../streams/proof.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { messagesUnder } from '../../log/messages-under.ts'
import { leaderGet, streamBounds } from '../../log/nats.ts'
import { manifestOf, packNumbers, readPack } from '../../log/packs.ts'
import { storedFact } from '../../log/read-fact.ts'
import { Reader } from '../../log/reader.ts'

const TAKE = 1000

export interface ProofSource {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
}

export interface VerifyProofOptions extends ProofSource {
  readonly keys?: readonly string[]
  readonly checkpoints?: readonly ProofCheckpoint[]
  readonly signal?: AbortSignal | undefined
}

/** A block as it stands on the stream, with its detail, if it has one. */
export interface StoredBlock {
  /** Of its head. */
  readonly seq: number
  readonly head: Uint8Array
  readonly detail: Uint8Array | undefined
}

/** All blocks of a shard from a place of the stream on, in order. */
export async function* blocksOf({ connection, names, shard }: ProofSource, from = 1): AsyncGenerator<StoredBlock> {
  const filters = [names.proofHead(shard), names.proofDetail(shard)]
  const last_by_subj = names.proofHead(shard)
  const last = await connection.read((nc) => leaderGet(nc, names.proof, { last_by_subj }))
  if (!last || last.seq < from) return
  let detail: { readonly seq: number; readonly payload: Uint8Array } | undefined
  for await (const { subject, seq, payload } of messagesUnder(connection, names.proof, filters, from)) {
    if (subject !== names.proofHead(shard)) detail = { seq, payload }
    // They are stored together, one behind the other.
    else yield { seq, head: payload, detail: detail?.seq === seq - 1 ? detail.payload : undefined }
  }
}

export async function verifyProof(options: VerifyProofOptions): Promise<ProofReport> {
  const { connection, names, shard, keys = [], checkpoints = [] } = options
  const { id } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  const check = new ProofCheck({ ns: names.ns, shard, keys, checkpoints, log: id })
  let read = 0
  for await (const { seq, head, detail } of blocksOf(options)) {
    check.block(head, detail)
    read = seq
  }
  if (check.first !== undefined) {
    await checkLog(options, check, check.first)
    await checkHistory(options, check)
    // What left while it was read: the proof said so before.
    for await (const { head } of blocksOf(options, read + 1)) check.leftSince(decodeBlock(head).left ?? [])
  }
  return check.end()
}

async function checkLog(
  { connection, names, shard, signal }: VerifyProofOptions,
  check: ProofCheck,
  from: number,
): Promise<void> {
  const { last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  const reader = new Reader(connection, names.log(shard), from, { onDenied: 'throw' })
  try {
    for (let next = from; next <= last; ) {
      signal?.throwIfAborted()
      const messages = await reader.take(TAKE, last)
      for (const message of messages) {
        const path = names.factPath(message.subject)
        if (path !== undefined && message.seq <= last) check.fact(storedFact(path, message))
      }
      next = (messages.at(-1)?.seq ?? last) + 1
    }
  } finally {
    reader.stop()
  }
}

/** Packs that are made meanwhile, too: what was in others may be there by now. */
async function checkHistory(options: VerifyProofOptions, check: ProofCheck): Promise<void> {
  const { shard, signal } = options
  for (let from = 0; ; ) {
    const manifest = await manifestOf(options, shard)
    if (!manifest || from >= manifest.packs) return
    for (const n of packNumbers(manifest, from)) {
      signal?.throwIfAborted()
      for (const { facts } of (await readPack(options, shard, n)) ?? []) for (const fact of facts) check.fact(fact)
    }
    from = manifest.packs
  }
}

/** What the operator keeps elsewhere: the newest block of a shard, as it is. */
export interface Checkpoint extends ProofCheckpoint {
  /** All facts of the log up to here are in blocks. */
  readonly to: number
  readonly at: string
  /** The public key that signed it, in base64; undefined: it is not signed. */
  readonly key?: string
}

/** Undefined where there is no block. */
export async function checkpointOf({ connection, names, shard }: ProofSource): Promise<Checkpoint | undefined> {
  const last_by_subj = names.proofHead(shard)
  const found = await connection.read((nc) => leaderGet(nc, names.proof, { last_by_subj }))
  if (!found) return undefined
  const { head, hash } = decodeBlock(found.payload)
  const { ns, n, to, atMs, key } = head
  return { ns, shard, n, hash, to, at: new Date(atMs).toISOString(), ...(key === '' ? {} : { key }) }
}
