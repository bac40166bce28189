/** Reads gates from the log: exact, whatever the engine has folded by now. */

import type { GateIds } from '../../projections/gate/gate.ts'
import type { FactOf } from '../../streams/facts.ts'
import { factPath } from '../../streams/facts.ts'
import { assetName, parseRunId } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import type { RunDeps } from '../client/run.ts'
import { GroupGet } from '../log/group-get.ts'
import { directGetMany, leaderGet } from '../log/nats.ts'
import { factOf } from '../worker/attempt/values.ts'
import type { GateView } from './types.ts'

export type GateAt = GateIds & { readonly p: number }

/** Of gates with the same base token, so many are looked at. */
const NAMED_MAX = 8

export class GateReader {
  readonly #deps: RunDeps
  readonly #created = new Map<number, GroupGet>()

  constructor(deps: RunDeps) {
    this.#deps = deps
  }

  async created(at: GateAt): Promise<FactOf<'gate.created'> | undefined> {
    // It never changes, so any replica will do; what that does not have is asked of the leader.
    const { names } = this.#deps
    const message = await this.#createdIn(at.p).last(names.fact(at.p, factPath('gate.created', idsOf(at))))
    const fact = message && factOf(names, at.p, message)
    return fact?.name === 'gate.created' ? fact : undefined
  }

  async resolved(at: GateAt): Promise<FactOf<'gate.resolved'> | undefined> {
    const fact = await this.#last(at.p, factPath('gate.resolved', idsOf(at)))
    return fact?.name === 'gate.resolved' ? fact : undefined
  }

  /** How often its deadline was moved (or found to be the last), and what the last one is. */
  async extensions(at: GateAt): Promise<{ count: number; timeouts: number; deadlineMs: number | undefined }> {
    const fact = await this.#last(at.p, factPath('gate.extended', { ...idsOf(at), n: '*' }))
    if (fact?.name !== 'gate.extended') return { count: 0, timeouts: 0, deadlineMs: undefined }
    return { count: Number(fact.ids.n), timeouts: fact.data.timeouts, deadlineMs: fact.data.deadlineMs }
  }

  /** The newest gate with a base token of this hash. */
  async byBase(hash: string): Promise<GateAt | undefined> {
    for await (const newest of this.named(hash)) return newest
    return undefined
  }

  /** Gates with a base token of this hash, the newest first, a few at the most. What is before the newest is read only when it is asked for, one by one. */
  async *named(hash: string): AsyncGenerator<GateAt> {
    const { partitions } = this.#deps
    const path = factPath('gate.named', { hash })
    const all = await Promise.all(Array.from({ length: partitions }, (_, p) => this.#last(p, path)))
    const found = all.flatMap((fact) => (fact?.name === 'gate.named' ? [fact] : []))
    const left = new Map<number, number>()
    for (let n = 1; ; n++) {
      const newest = found.sort((a, b) => b.timeMs - a.timeMs).shift()
      if (!newest) return
      const { p, seq, data } = newest
      yield { run: parseRunId(data.run).id, asset: assetName(data.asset), gate: data.gate, p }
      if (n === NAMED_MAX) return
      // Mostly there is but one, and the server may look through all of the log for one before it.
      const rest = (left.get(p) ?? (await this.#count(p, path))) - 1
      left.set(p, rest)
      const before = rest > 0 ? await this.#lastUpTo(p, path, seq - 1) : undefined
      if (before?.name === 'gate.named') found.push(before)
    }
  }

  async ofRun(run: string): Promise<GateAt[]> {
    const { connection, names } = this.#deps
    const { id, partition: p } = parseRunId(run)
    const prefix = names.fact(p, `gate.${id}.`)
    const jsm = await jetstreamManager(connection.nc)
    const filter = `${prefix}*.*.created`
    const info = await connection.read(() => jsm.streams.info(names.log(p), { subjects_filter: filter }))
    return Object.keys(info.state.subjects ?? {}).map((subject) => {
      const [asset = '', gate = ''] = subject.slice(prefix.length).split('.')
      return { run: id, asset: assetName(asset), gate, p }
    })
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
          ? { payload: await this.#deps.io.load(end.payload), source: end.source, headers: end.headers ?? {} }
          : undefined,
      reason: end?.reason,
    }
  }

  #createdIn(p: number): GroupGet {
    const { connection, names } = this.#deps
    const gets = this.#created.get(p) ?? new GroupGet(connection, names.log(p))
    this.#created.set(p, gets)
    return gets
  }

  async #last(p: number, path: string): Promise<ReturnType<typeof factOf> | undefined> {
    const { connection, names } = this.#deps
    const subject = names.fact(p, path)
    const message = await connection.read((nc) => leaderGet(nc, names.log(p), { last_by_subj: subject }))
    return message && factOf(names, p, message)
  }

  async #lastUpTo(p: number, path: string, upToSeq: number): Promise<ReturnType<typeof factOf> | undefined> {
    const { connection, names } = this.#deps
    const subject = names.fact(p, path)
    const found = await connection.read((nc) => directGetMany(nc, names.log(p), [subject], { upToSeq }))
    const message = found.get(subject)
    return message && factOf(names, p, message)
  }

  /** How many facts stand under it. */
  async #count(p: number, path: string): Promise<number> {
    const { connection, names } = this.#deps
    const subject = names.fact(p, path)
    const jsm = await jetstreamManager(connection.nc)
    const info = await connection.read(() => jsm.streams.info(names.log(p), { subjects_filter: subject }))
    return info.state.subjects?.[subject] ?? 0
  }
}

function idsOf({ run, asset, gate }: GateAt): { run: string; asset: string; gate: string } {
  return { run, asset, gate }
}
