/** Fills an empty namespace with what archives hold. */
import type { RunState } from '../../../projections/state.ts'
import {
  type ArchiveRecord,
  type BlobPart,
  badArchive,
  blobName,
  blobPartIn,
  documentIn,
  factIn,
  positionIn,
} from '../../../streams/archive.ts'
import { unsqueezeLarge } from '../../../streams/compress.ts'
import { decodeFact, type FactOf, parsePath } from '../../../streams/facts.ts'
import type { SealedFact } from '../../../streams/history.ts'
import { isRunId } from '../../../streams/ids.ts'
import { Blobs } from '../../io/blobs.ts'
import { hashOf } from '../../io/nats.ts'
import type { FillDeps, Verified } from './import-deps.ts'
import { Positions } from './positions.ts'
import { ShardFill } from './shard-fill.ts'

/** What was stored. */
export interface Filled {
  readonly runs: number
  readonly facts: number
  readonly documents: number
  readonly blobs: number
  /** Where schedules, sensors and subscriptions go on. */
  readonly positions: number
  /** Runs that were left out because they had not ended. */
  readonly left: number
  /** Runs that were in an archive before. */
  readonly twice: number
}

export async function fill(deps: FillDeps, archives: readonly Verified[]): Promise<Filled> {
  const filling = new Filling(deps)
  await filling.begin(archives)
  for (const archive of archives) await filling.add(archive)
  return await filling.end()
}

type Counts = { -readonly [Name in keyof Filled]: number }

class Filling {
  readonly #deps: FillDeps
  readonly #blobs: Blobs
  readonly #shards: ShardFill[] = []
  readonly #counts: Counts = { runs: 0, facts: 0, documents: 0, blobs: 0, positions: 0, left: 0, twice: 0 }
  /** Of this archive: runs that are not taken. */
  readonly #skipped = new Set<string>()
  readonly #positions = new Positions()
  #blob: BlobPart[] = []

  constructor(deps: FillDeps) {
    this.#deps = deps
    this.#blobs = new Blobs(deps.connection, deps.topology.names.blobBucket)
  }

  async begin(archives: readonly Verified[]): Promise<void> {
    const { shards } = this.#deps.topology
    for (let shard = 0; shard < shards; shard++) {
      const lasts = archives.flatMap(({ foot }) => foot.ranges.filter((range) => range.shard === shard))
      const last = Math.max(0, ...lasts.map((range) => range.last))
      this.#shards.push(await ShardFill.begin(this.#deps, shard, last))
    }
  }

  async add({ head, records }: Verified): Promise<void> {
    this.#skipped.clear()
    for await (const record of records()) {
      if (record.kind === 'archive') continue
      if (record.kind === 'blob') await this.#addBlob(record)
      else if (record.kind === 'position') this.#addPosition(record)
      else if (record.kind === 'document') await this.#addDocument(record)
      else await this.#addFact(head.namespace, record)
    }
    for (const shard of this.#shards) await shard.endRun()
  }

  async end(): Promise<Filled> {
    const [left] = this.#blob
    if (left) throw badArchive(`blob ${left.ref.hash} lacks a part`)
    for (const [n, shard] of this.#shards.entries()) await shard.end(n === 0 ? this.#positions : undefined)
    return { ...this.#counts, positions: this.#positions.count }
  }

  #shardOf({ shard, kind }: ArchiveRecord): ShardFill {
    const found = shard === undefined ? undefined : this.#shards[shard]
    if (!found) throw badArchive(`a line of ${kind} is of shard ${shard}, which there is not`)
    return found
  }

  #addPosition(record: ArchiveRecord): void {
    const { key, doc } = positionIn(record)
    if (this.#deps.positions) this.#positions.add(key, doc)
  }

  async #addDocument(record: ArchiveRecord): Promise<void> {
    const shard = this.#shardOf(record)
    const { run, shard: of = 0 } = record
    const { key, doc } = documentIn(record)
    if (run === undefined) {
      if (!key.startsWith('asset.') || typeof fieldOf(doc, 'seq') !== 'number')
        throw badArchive(`document ${key} is of no run, and no newest value`)
      shard.addEntry(key, doc)
      return
    }
    if (!isRunId(run, of)) throw badArchive(`document ${key} is of no run of shard ${of}`)
    if (key === `run.${run}` && !this.#isTaken(shard, run, doc)) this.#skipped.add(run)
    if (this.#skipped.has(run)) return
    if (key === `run.${run}`) this.#positions.sees(doc as RunState)
    this.#counts.documents += 1
    await shard.addDocument(run, key, doc)
  }

  /** Whether a run is taken, of which this is the document. */
  #isTaken(shard: ShardFill, run: string, doc: unknown): boolean {
    if (fieldOf(doc, 'id') !== run || typeof fieldOf(doc, 'assets') !== 'object')
      throw badArchive(`the document of run ${run} is none`)
    if (fieldOf(doc, 'finishedMs') === undefined) {
      this.#counts.left += 1
      return false
    }
    if (shard.has(run)) {
      this.#counts.twice += 1
      return false
    }
    this.#counts.runs += 1
    return true
  }

  async #addFact(ns: string, record: ArchiveRecord): Promise<void> {
    const shard = this.#shardOf(record)
    const { run } = record
    if (run !== undefined && record.reference !== true && this.#skipped.has(run)) return
    const fact = factIn(ns, record)
    const parsed = parsePath(fact.path)
    if (!parsed) throw badArchive(`${fact.path} is no fact`)
    if (parsed.ids.run !== undefined && !isRunId(parsed.ids.run, fact.shard))
      throw badArchive(`${fact.path} is of no run of shard ${fact.shard}`)
    this.#counts.facts += 1
    if (parsed.name === 'pipeline.registered') {
      shard.addPipeline(fact)
      this.#positions.addPipeline(fact)
    } else if (run === undefined || record.reference) await shard.addLoose(fact)
    else await shard.addFact(run, fact, parsed.name === 'asset.materialized' ? materializedIn(fact) : undefined)
  }

  async #addBlob(record: ArchiveRecord): Promise<void> {
    const part = blobPartIn(record)
    if (part.part !== this.#blob.length) throw badArchive(`blob ${part.ref.hash} lacks a part`)
    this.#blob.push(part)
    if (this.#blob.length < part.parts) return
    const bytes = Buffer.concat(this.#blob.map((one) => one.bytes))
    this.#blob = []
    const { hash, encoding, plainBytes = 0 } = part.ref
    if (hashOf(await unsqueezeLarge(bytes, encoding, plainBytes)) !== hash)
      throw badArchive(`value ${hash} is another one: its hash is not that`)
    await this.#blobs.put(blobName(part.ref), bytes, false)
    this.#counts.blobs += 1
  }
}

function fieldOf(doc: unknown, field: string): unknown {
  return typeof doc === 'object' && doc !== null ? Reflect.get(doc, field) : undefined
}

function materializedIn(fact: SealedFact & { readonly shard: number }): FactOf<'asset.materialized'> | undefined {
  const decoded = decodeFact(fact)
  return decoded.name === 'asset.materialized' ? decoded : undefined
}
