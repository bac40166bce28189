/**
 * Stored values: each that a fact names is in the object store, and each that is there is what its
 * name says.
 */
import { createHash } from 'node:crypto'
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { referencesIn } from '../../../projections/verify/proofs.ts'
import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import type { Fact } from '../../../streams/facts.ts'
import type { SealedFact, SealedRun } from '../../../streams/history.ts'
import { hashBigInt } from '../../../streams/ids.ts'
import { createZstdDecompress } from '../../../streams/zstd.ts'
import { Blobs } from '../../io/blobs.ts'
import { messagesUnder } from '../../log/messages-under.ts'
import { sealedFactIfAny } from '../../log/read-fact.ts'
import type { Check, LogMessage, ShardContext, VerifyContext } from './check.ts'
import { isDamage, isOfZlib } from './damage.ts'
import { Ledger } from './ledger.ts'

const CHECK = 'values'
/** A message's worth, for the pace. */
const STEP_BYTES = 64 * 1024
const NAME = /^([0-9a-f]{64})(-zstd)?$/
const RESTORE = "restore the object store from a backup, or make the asset again: a run with `upstream: 'all'`"

/** Of all shards: the object store is one. */
export class ValuesCheck {
  readonly #context: VerifyContext
  readonly #ledger: Ledger
  #named = 0

  constructor(context: VerifyContext) {
    this.#context = context
    this.#ledger = new Ledger(context.scratch)
  }

  /** What is looked at in one shard. */
  of({ shard }: ShardContext): Check {
    const take = (fact: Fact, of: string): void => this.#take(fact, `${of} of shard ${shard}`)
    return {
      message: ({ fact, path }: LogMessage) => {
        if (fact) take(fact, `${path} at ${fact.seq}`)
      },
      pack: (_n: number, runs: readonly SealedRun[]) => {
        for (const { facts } of runs)
          for (const sealed of facts) {
            if (!MAY_NAME.test(sealed.path)) continue
            const fact = sealedFactIfAny(this.#context, shard, sealed, (error) => this.#unseen(shard, sealed, error))
            if (fact) take(fact, `the sealed ${sealed.path} at ${sealed.seq}`)
          }
      },
      finish: async () => undefined,
    }
  }

  /** Nobody knows which values it names, which is said. */
  #unseen(shard: number, { path, seq }: SealedFact, error: unknown): void {
    this.#context.findings.unseen(`values of the sealed ${path} at ${seq} of shard ${shard}`, messageOf(error))
  }

  #take(fact: Fact, of: string): void {
    for (const { hash, encoding } of referencesIn(fact, 'nats')) {
      const name = `${String(hash)}${encoding === 'zstd' ? '-zstd' : ''}`
      this.#named += 1
      this.#ledger.want(hashBigInt(name), JSON.stringify([name, of]))
    }
  }

  /** After all shards: then all that was named was stored before. */
  async finish(): Promise<void> {
    const { connection, names, findings, pace, progress } = this.#context
    const bucket = names.blobBucket
    const blobs = new Blobs(connection, bucket)
    let count = 0
    for await (const { subject, payload } of messagesUnder(connection, `OBJ_${bucket}`, [`$O.${bucket}.M.>`])) {
      const name = Buffer.from(subject.slice(`$O.${bucket}.M.`.length), 'base64url').toString()
      if (!NAME.test(name)) continue
      count += 1
      progress({ shard: 0, step: 'reading values', done: count })
      await pace.took(1 + Math.ceil(sizeIn(payload) / STEP_BYTES))
      if (await this.#isGood(blobs, name)) this.#ledger.add(hashBigInt(name), 0)
    }
    const said = new Set<string>()
    for (const found of this.#ledger.compare()) {
      if (!('missing' in found)) continue
      const [name, of] = JSON.parse(found.missing) as [string, string]
      if (said.has(name) || (await this.#isThere(blobs, name))) continue
      said.add(name)
      const message = `value ${name} is not in object store ${bucket}; ${of} names it`
      findings.add({ check: CHECK, kind: 'value_missing', value: name, message, advice: RESTORE })
    }
    findings.looked(CHECK, undefined, { values: count, named: this.#named })
  }

  /** False when it is gone by now. What is damaged is reported. */
  async #isGood(blobs: Blobs, name: string): Promise<boolean> {
    const [, wanted, encoding] = NAME.exec(name) ?? []
    try {
      const bytes = await blobs.get(name)
      if (!bytes) return false
      const found = encoding === undefined ? createHash('sha256').update(bytes).digest('hex') : await plainHash(bytes)
      if (found !== wanted) this.#addDamaged(name, `its content has the hash ${found}`)
    } catch (error) {
      const isKnown = error instanceof FlowStoneError && error.code === 'damaged_value'
      if (!isKnown && !isOfZlib(error)) throw error
      // Its own words name the value already.
      this.#addDamaged(name, isKnown ? messageOf(error).replace(/^.* is damaged: /, '') : messageOf(error))
    }
    return true
  }

  #addDamaged(name: string, how: string): void {
    const message = `value ${name} in object store ${this.#context.names.blobBucket} is damaged: ${how}`
    this.#context.findings.add({ check: CHECK, kind: 'value_damaged', value: name, message, advice: RESTORE })
  }

  async #isThere(blobs: Blobs, name: string): Promise<boolean> {
    try {
      return (await blobs.get(name)) !== undefined
    } catch (error) {
      if (!isDamage(error)) throw error
      // That was said.
      return true
    }
  }
}

/** Facts that may hold a value. */
const MAY_NAME = /\.(requested|materialized|outcomes|resolved|finished|child_requested)$|^subscription\./

function sizeIn(meta: Uint8Array): number {
  try {
    const doc: unknown = JSON.parse(Buffer.from(meta).toString())
    return typeof doc === 'object' && doc !== null ? Number(Reflect.get(doc, 'size') ?? 0) : 0
  } catch {
    return 0
  }
}

/** Of what was compressed, which is never in memory as a whole. */
async function plainHash(bytes: Uint8Array): Promise<string> {
  const hash = createHash('sha256')
  const into = new Writable({
    write(chunk: Uint8Array, _encoding, done) {
      hash.update(chunk)
      done()
    },
  })
  await pipeline(Readable.from([bytes]), createZstdDecompress(), into)
  return hash.digest('hex')
}
