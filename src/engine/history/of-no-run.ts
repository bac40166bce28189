/**
 * Facts that are of no run: of triggers, subscriptions, schedules and sensors. They leave the log
 * with the runs, once the base has folded them. Some stay: the last of a chain, and the newest of a
 * list that people read. docs/decisions/history.md says why nothing else is needed.
 */
import { jetstreamManager } from '../../../streams/jetstream.ts'
import { countBehind, isGone, leaderGet, streamInfo } from '../../log/nats.ts'
import type { SealerOptions } from './options.ts'

/** The fold has them, and nothing reads them again. */
const CONSUMED = [
  'subscription.*.*.group.*.timer_fired',
  'schedule.*.*.due.*',
  'schedule.*.*.hold.*',
  'schedule.*.*.triggered.*',
  'schedule.*.*.backfill_requested.*',
  'sensor.*.*.hold.*',
  'sensor.*.*.triggered.*',
] as const
/** Of the copies of triggers: only once the triggers themselves are gone. */
const TRIGGERS = 'trigger.*.received'
/** Of each list so many are kept. */
const LIST_KEPT = 1000
/** Pairs of a refused message, and the fact that it was taken since, that go in one look. */
const PAIRS = 100

type OfNoRunOptions = Pick<SealerOptions, 'connection' | 'names' | 'shard' | 'leaving'>

/** Facts that leave: all under a path up to a sequence. */
interface Leaving {
  readonly path: string
  readonly upTo: number
}

export class OfNoRun {
  readonly #options: OfNoRunOptions

  constructor(options: OfNoRunOptions) {
    this.#options = options
  }

  /** `upTo`: all up to here is in the base. `atMs`: it was, at this time. */
  async purge(upTo: number, atMs: number): Promise<void> {
    // The other shards have runs only.
    if (this.#options.shard !== 0 || upTo < 1) return
    const consumed = (await this.#areTaken(atMs)) ? [...CONSUMED, TRIGGERS] : CONSUMED
    await this.#purge(consumed.map((path) => ({ path, upTo })))
    await this.#keepNewest('trigger.*.refused', upTo)
    await this.#trimTaken(upTo)
    await this.#trimRefused(upTo)
    const schedules = await this.#groups('schedule.*.*.at.*.*', 3)
    for (const [schedule, { length }] of schedules)
      if (length > LIST_KEPT) await this.#keepNewest(`${schedule}.at.*.*`, upTo)
  }

  /**
   * Whether the triggers of that time have left their stream. One that was copied and is still
   * there would be copied again.
   */
  async #areTaken(atMs: number): Promise<boolean> {
    const { connection, names } = this.#options
    const query = { seq: 1, next_by_subj: '>' }
    const first = await connection
      .read((nc) => leaderGet(nc, names.triggers, query))
      .catch((error: unknown) => {
        if (isGone(error)) return undefined
        throw error
      })
    return first === undefined || first.timeMs > atMs
  }

  /** Of each chain the last fact says where the next one begins. */
  async #trimTaken(upTo: number): Promise<void> {
    const { connection, names } = this.#options
    const earlier: Leaving[] = []
    for (const [chain, { length }] of await this.#groups('subscription.*.*.taken.*.*', 5)) {
      if (length < 2) continue
      const last_by_subj = names.fact(0, `${chain}.*`)
      const last = await connection.read((nc) => leaderGet(nc, names.log(0), { last_by_subj }))
      if (last) earlier.push({ path: `${chain}.*`, upTo: Math.min(upTo, last.seq - 1) })
    }
    await this.#purge(earlier)
  }

  /** A message that was refused, and was taken since, is in no list any more. */
  async #trimRefused(upTo: number): Promise<void> {
    const pairs: Leaving[] = []
    const retried = await this.#groups('subscription.*.*.retried.*.*', 6)
    for (const path of [...retried.keys()].slice(0, PAIRS)) {
      const { connection, names } = this.#options
      const last_by_subj = names.fact(0, path)
      const found = await connection.read((nc) => leaderGet(nc, names.log(0), { last_by_subj }))
      if (!found || found.seq > upTo) continue
      // In this order: a refusal alone would be listed again.
      pairs.push({ path: path.replace('.retried.', '.refused.'), upTo }, { path, upTo })
    }
    await this.#purge(pairs)
    await this.#keepNewest('subscription.*.*.refused.*.*', upTo)
  }

  /** What is not in the base stays in any case. */
  async #keepNewest(path: string, upTo: number): Promise<void> {
    const young = await this.#countBehind(upTo, path)
    const kept = young > LIST_KEPT / 2 ? young : LIST_KEPT
    if ((await this.#countBehind(0, path)) <= kept) return
    // The last one behind which there are still as many as are kept.
    let [low, high] = [0, upTo]
    while (low < high) {
      const middle = Math.ceil((low + high) / 2)
      if ((await this.#countBehind(middle, path)) >= kept) low = middle
      else high = middle - 1
    }
    await this.#purge([{ path, upTo: low }])
  }

  async #countBehind(seq: number, path: string): Promise<number> {
    const { connection, names } = this.#options
    return await connection.read((nc) => countBehind(nc, names.log(0), seq, names.fact(0, path)))
  }

  /** In this order, after the proof says that they leave. */
  async #purge(all: readonly Leaving[]): Promise<void> {
    const { connection, names, leaving } = this.#options
    const due: Leaving[] = []
    for (const one of all) {
      const query = { seq: 1, next_by_subj: names.fact(0, one.path) }
      const first = await connection.read((nc) => leaderGet(nc, names.log(0), query))
      if (first && first.seq <= one.upTo) due.push(one)
    }
    await leaving(due.map((one) => ({ why: 'folded', ...one })))
    const jsm = await jetstreamManager(connection.nc)
    for (const { path, upTo } of due)
      await jsm.streams.purge(names.log(0), { filter: names.fact(0, path), seq: upTo + 1 })
  }

  /** What stands under a path, by the first tokens of it. */
  async #groups(path: string, tokens: number): Promise<Map<string, string[]>> {
    const { connection, names } = this.#options
    const info = await connection.read((nc) => streamInfo(nc, names.log(0), names.fact(0, path)))
    const groups = new Map<string, string[]>()
    for (const subject of Object.keys(info.state.subjects ?? {})) {
      const [...all] = (names.factPath(subject) ?? '').split('.')
      const group = all.slice(0, tokens).join('.')
      const members = groups.get(group) ?? []
      members.push(subject)
      groups.set(group, members)
    }
    return groups
  }
}
