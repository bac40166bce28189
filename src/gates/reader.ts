/** Reads gates from the log: exact, whatever the engine has folded by now. */

import type { GateIds } from '../../projections/effects.ts'
import type { Fact, FactOf } from '../../streams/facts.ts'
import { factPath } from '../../streams/facts.ts'
import { assetName, parseRunId } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import { placeOf } from '../../streams/places.ts'
import type { StoredValue } from '../../streams/schemas.ts'
import { isGone } from '../io/nats.ts'
import { factIn } from '../log/doc-source.ts'
import { GroupGet } from '../log/group-get.ts'
import { isSealed, sealedFact, sealedParts, sealedUnder } from '../log/history.ts'
import { directGetMany, leaderGet } from '../log/nats.ts'
import { factOf } from '../log/read-fact.ts'
import type { GateDeps } from './deps.ts'
import type { GateView } from './types.ts'

export type GateAt = GateIds & { readonly shard: number }

/** Facts of a run leave the log more than this after its end, but for tests. */
const YOUNG_MS = 2000
/** How long a run that was not sealed counts as such. */
const NOT_SEALED_MS = 1000
const REMEMBERED = 1000

/** Of gates with the same correlation key, so many are looked at. */
const NAMED_MAX = 8

export class GateReader {
  readonly #deps: GateDeps
  readonly #created = new Map<number, GroupGet>()
  readonly #notSealed = new Map<string, number>()

  constructor(deps: GateDeps) {
    this.#deps = deps
  }

  async created(at: GateAt): Promise<FactOf<'gate.created'> | undefined> {
    const { names, docs } = this.#deps
    if (docs.past) return await factIn(docs, at.run, 'gate.created', idsOf(at))
    // It never changes, so any replica will do; what that does not have is asked of the leader.
    const path = factPath('gate.created', idsOf(at))
    const message = await this.#createdIn(at.shard).last(names.fact(at.shard, path))
    const fact = message ? factOf(names, at.shard, message) : await sealedFact(this.#deps, at.run, path)
    return fact?.name === 'gate.created' ? fact : undefined
  }

  /**
   * Whether the run of a gate is sealed, so that the log may not know how the gate ended. A gate
   * that was opened a moment ago is of no such run.
   */
  async isSealed({ run }: GateAt, { timeMs }: FactOf<'gate.created'>): Promise<boolean> {
    const nowMs = performance.now()
    if (this.#deps.clock.now() - timeMs < YOUNG_MS || nowMs < (this.#notSealed.get(run) ?? 0)) return false
    if (await isSealed(this.#deps, run)) return true
    if (this.#notSealed.size > REMEMBERED) this.#notSealed.clear()
    this.#notSealed.set(run, nowMs + NOT_SEALED_MS)
    return false
  }

  async resolved(at: GateAt): Promise<FactOf<'gate.resolved'> | undefined> {
    return await factIn(this.#deps.docs, at.run, 'gate.resolved', idsOf(at))
  }

  /** How often its deadline was moved (or found to be the last), and what the last one is. */
  async extensions(at: GateAt): Promise<{ count: number; timeouts: number; deadlineMs: number | undefined }> {
    const path = placeOf({ name: 'gate.extended', ids: { ...idsOf(at), n: '*' } })
    const fact = await this.#deps.docs.lastOfRun(at.run, path)
    if (fact?.name !== 'gate.extended' && fact?.name !== 'gate.deadline_closed')
      return { count: 0, timeouts: 0, deadlineMs: undefined }
    return { count: Number(fact.ids.n), timeouts: fact.data.timeouts, deadlineMs: fact.data.deadlineMs }
  }

  /** The newest gate with a correlation key of this hash. */
  async byCorrelation(hash: string): Promise<GateAt | undefined> {
    for await (const newest of this.named(hash)) return newest
    return undefined
  }

  /**
   * Gates with a correlation key of this hash, the newest first, a few at most. Those before the
   * newest are read only on demand, one by one.
   */
  async *named(hash: string): AsyncGenerator<GateAt> {
    const { shards } = this.#deps
    const path = factPath('gate.correlated', { hash })
    const all = await Promise.all(
      Array.from(
        { length: shards },
        async (_, shard) => (await this.#last(shard, path)) ?? (await sealedUnder(this.#deps, shard, path)),
      ),
    )
    const found = all.flatMap((fact) => (fact?.name === 'gate.correlated' ? [fact] : []))
    const left = new Map<number, number>()
    for (let n = 1; ; n++) {
      const newest = found.sort((a, b) => b.timeMs - a.timeMs).shift()
      if (!newest) return
      const { shard, seq, data } = newest
      yield { run: parseRunId(data.run).id, asset: assetName(data.asset), gate: data.gate, shard }
      if (n === NAMED_MAX) return
      // Mostly there is but one, and the server may look through all of the log for one before it.
      const rest = (left.get(shard) ?? (await this.#count(shard, path))) - 1
      left.set(shard, rest)
      const before = rest > 0 ? await this.#lastUpTo(shard, path, seq - 1) : undefined
      if (before?.name === 'gate.correlated') found.push(before)
    }
  }

  async ofRun(run: string): Promise<GateAt[]> {
    const { connection, names, docs } = this.#deps
    const { id, shard } = parseRunId(run)
    if (docs.past) return await gatesIn(docs.factsOfRun(id))
    const prefix = names.fact(shard, `gate.${id}.`)
    const jsm = await jetstreamManager(connection.nc)
    const filter = `${prefix}*.*.created`
    const info = await connection.read(() => jsm.streams.info(names.log(shard), { subjects_filter: filter }))
    const hot = Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
    const cold: string[] = []
    for await (const { facts } of sealedParts(this.#deps, id))
      for (const { path } of facts) {
        const [kind, , asset, gate, event] = path.split('.')
        if (kind === 'gate' && event === 'created') cold.push(`${asset}.${gate}.created`)
      }
    return [...new Set([...hot, ...cold])].map((place) => {
      const [asset = '', gate = ''] = place.split('.')
      return { run: id, asset: assetName(asset), gate, shard }
    })
  }

  /** A payload that is gone hides nothing else of its gate, nor the other gates of a list. */
  async #payloadOf(stored: StoredValue): Promise<unknown> {
    try {
      return await this.#deps.io.load(stored)
    } catch (error) {
      if (isGone(error)) return undefined
      throw error
    }
  }

  async view(at: GateAt): Promise<GateView | undefined> {
    const [created, moved, resolved] = await Promise.all([this.created(at), this.extensions(at), this.resolved(at)])
    if (!created) return undefined
    const { data } = created
    const end = resolved?.data
    const deadlineMs = moved.deadlineMs ?? data.deadlineMs
    const timeouts = moved.timeouts + (end?.outcome === 'timed_out' ? 1 : 0)
    return {
      id: `${at.run}.${at.asset}.${at.gate}`,
      run: at.run,
      asset: at.asset,
      index: data.index,
      status: end?.outcome ?? 'waiting',
      openedAt: new Date(created.timeMs),
      deadline: deadlineMs === undefined ? undefined : new Date(deadlineMs),
      timeouts,
      retriesLeft: Math.max(0, data.retriesMs.length - timeouts),
      metadata: data.metadata,
      kind: data.kind,
      endedAt: resolved && new Date(resolved.timeMs),
      signal:
        end?.outcome === 'signaled' && end.payload
          ? { payload: await this.#payloadOf(end.payload), source: end.source, headers: end.headers ?? {} }
          : undefined,
      reason: end?.reason,
      refused: undefined,
    }
  }

  #createdIn(shard: number): GroupGet {
    const { connection, names } = this.#deps
    const gets = this.#created.get(shard) ?? new GroupGet(connection, names.log(shard))
    this.#created.set(shard, gets)
    return gets
  }

  async #last(shard: number, path: string): Promise<ReturnType<typeof factOf> | undefined> {
    const { connection, names } = this.#deps
    const subject = names.fact(shard, path)
    const message = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj: subject }))
    return message && factOf(names, shard, message)
  }

  async #lastUpTo(shard: number, path: string, upToSeq: number): Promise<ReturnType<typeof factOf> | undefined> {
    const { connection, names } = this.#deps
    const subject = names.fact(shard, path)
    const found = await connection.read((nc) => directGetMany(nc, names.log(shard), [subject], { upToSeq }))
    const message = found.get(subject)
    return message && factOf(names, shard, message)
  }

  /** How many facts stand under it. */
  async #count(shard: number, path: string): Promise<number> {
    const { connection, names } = this.#deps
    const subject = names.fact(shard, path)
    const jsm = await jetstreamManager(connection.nc)
    const info = await connection.read(() => jsm.streams.info(names.log(shard), { subjects_filter: subject }))
    return info.state.subjects?.[subject] ?? 0
  }
}

async function gatesIn(facts: AsyncIterable<Fact>): Promise<GateAt[]> {
  const gates: GateAt[] = []
  for await (const { name, ids, shard } of facts)
    if (name === 'gate.created')
      gates.push({ run: parseRunId(ids.run).id, asset: assetName(ids.asset), gate: ids.gate, shard })
  return gates
}

function idsOf({ run, asset, gate }: GateAt): { run: string; asset: string; gate: string } {
  return { run, asset, gate }
}
