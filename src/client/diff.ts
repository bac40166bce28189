/** `flow.diff`: what changed between two times. */
import type { BarrierState } from '../../projections/scatter/state.ts'
import { type CatalogEntry, type RunState, stateKey } from '../../projections/state.ts'
import { InvalidError } from '../../streams/errors.ts'
import { decodeToken, isInternalAsset } from '../../streams/ids.ts'
import { shown } from '../../streams/shown.ts'
import type { GateSettings } from '../gates/settings.ts'
import type { GateView } from '../gates/types.ts'
import { waitingGates } from '../gates/waiting.ts'
import { streamBounds } from '../log/nats.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { FlowAt, type PositionAt, type ShardSeq, type When } from './at.ts'
import { type ScatterView, viewOfBarrier } from './run.ts'
import { isInternal, type RunDeps, type RunView } from './run-view.ts'
import type { ScheduleView } from './schedules.ts'

/** How `flow.diff` compares. */
export interface DiffOptions {
  /** Of each kind at most so many: 1 to 10,000. Default 1,000. */
  readonly limit?: number
}

/** Before and after. Undefined: it was not there. */
export interface Change<T> {
  readonly before: T | undefined
  readonly after: T | undefined
}

/** A value of an asset: which run made it, and when. */
export interface ValueMade {
  readonly run: string
  readonly at: Date
}

/** What changed between two times. */
export interface FlowDiff {
  readonly from: PositionAt
  readonly to: PositionAt
  /** Runs that began, ended, or changed their status otherwise. */
  readonly runs: readonly ({
    readonly id: string
    /** The asset that was asked for: `<pipeline>/<asset>`. */
    readonly target: string
    readonly partition: string | undefined
  } & Change<RunView['status']>)[]
  /** Assets with a newer value; '' stands for no partition. */
  readonly assets: readonly ({ readonly asset: string; readonly partition: string } & Change<ValueMade>)[]
  /** Gates that wait at one of the two times and not at the other. */
  readonly gates: readonly ({ readonly id: string } & Change<GateView['status']>)[]
  readonly scatters: readonly ({ readonly id: string } & Change<ScatterView>)[]
  /** Schedules that were changed, paused, or had something due. */
  readonly schedules: readonly ({ readonly name: string } & Change<ScheduleView>)[]
  /** Of which of these there are more than `limit`. */
  readonly more: readonly string[]
}

const LIMIT = 1000
const LIMIT_MAX = 10_000
const READ_AHEAD = 64
/** Of gates that wait, so many are compared. */
const GATES_MAX = 100_000

export async function diff(
  live: RunDeps,
  gates: GateSettings,
  { from, to }: { readonly from: When; readonly to: When | undefined },
  options: DiffOptions,
): Promise<FlowDiff> {
  refuseUnknown('diff', options, ['limit'])
  const { limit = LIMIT } = options
  if (!(Number.isInteger(limit) && limit >= 1 && limit <= LIMIT_MAX))
    throw new InvalidError(`diff: limit must be a whole number from 1 to ${LIMIT_MAX}, got ${shown(limit)}`)
  await live.found()
  const a = new FlowAt(live, gates, from)
  const b = new FlowAt(live, gates, to ?? (await now(live)))
  const [fromAt, toAt] = await Promise.all([a.position(), b.position()])
  if (fromAt.at > toAt.at || fromAt.shards.some(({ seq }, shard) => seq > (toAt.shards[shard]?.seq ?? 0)))
    throw new InvalidError(
      `diff: the first time must not be after the second: ${fromAt.at.toISOString()}, ${toAt.at.toISOString()}`,
    )
  const comparison = new Comparison(a, b, limit)
  const runs = await comparison.runs(fromAt.at)
  const parts = {
    assets: await comparison.assets(),
    gates: await comparison.gates(),
    scatters: await comparison.scatters(runs),
    schedules: await comparison.schedules(),
  }
  const listed = runs.map(({ doc: _, ...run }) => run)
  return { from: fromAt, to: toAt, runs: listed, ...parts, more: comparison.more }
}

/** By sequence: what this process takes for the server's time may be a moment early. */
async function now({ connection, names, shards, clock }: RunDeps): Promise<When> {
  const ends: ShardSeq[] = []
  for (let shard = 0; shard < shards; shard++) {
    const { last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
    if (last > 0) ends.push({ shard, seq: last })
  }
  return ends.length > 0 ? ends : new Date(Math.floor(clock.now()))
}

type ChangedRun = FlowDiff['runs'][number] & { readonly doc: RunState | undefined }

class Comparison {
  readonly #a: FlowAt
  readonly #b: FlowAt
  readonly #limit: number
  readonly more: string[] = []

  constructor(a: FlowAt, b: FlowAt, limit: number) {
    this.#a = a
    this.#b = b
    this.#limit = limit
  }

  /** Those that were open before, and those that were asked for since. */
  async runs(since: Date): Promise<ChangedRun[]> {
    const { docs, shards } = this.#a.deps
    const open = new Set<string>()
    for (let shard = 0; shard < shards; shard++)
      for (const key of await docs.keys(shard, 'open.')) open.add(key.slice('open.'.length))
    const changed: ChangedRun[] = []
    await this.#changed([...open], changed)
    let after: string | undefined
    // Of those that were asked for in the same millisecond, some may be no change.
    while (changed.length <= this.#limit) {
      const limit = Math.min(LIMIT_MAX, this.#limit + 1)
      const page = await this.#b.runs({ since, limit, ...(after === undefined ? {} : { after }) })
      await this.#changed(
        page.flatMap(({ id }) => (open.has(id) ? [] : [id])),
        changed,
      )
      after = page.at(-1)?.id
      if (page.length < limit) break
    }
    return this.#cut(
      'runs',
      changed.toSorted((x, y) => (x.id < y.id ? -1 : 1)),
    )
  }

  async #changed(ids: readonly string[], changed: ChangedRun[]): Promise<void> {
    await inParts(ids, async (run) => {
      const [before, doc] = await Promise.all([runIn(this.#a, run), runIn(this.#b, run)])
      const shown = doc ?? before
      if (!shown || isInternal(shown) || before?.status === doc?.status) return
      const { pipeline, target, partition } = shown
      const of = { id: run, target: `${pipeline}/${target}`, partition }
      changed.push({ ...of, before: viewed(before), after: viewed(doc), doc })
    })
  }

  async assets(): Promise<FlowDiff['assets']> {
    const { shards } = this.#a.deps
    const [before, after] = [new Map<string, CatalogEntry>(), new Map<string, CatalogEntry>()]
    for (let shard = 0; shard < shards; shard++)
      for (const [flow, found] of [
        [this.#a, before],
        [this.#b, after],
      ] as const)
        for (const key of await flow.deps.docs.keys(shard, 'asset.')) {
          // The type of document follows from its key.
          const entry = (await flow.deps.docs.read(shard, key)) as CatalogEntry | undefined
          const other = found.get(key)
          if (entry && (!other || entry.timeMs >= other.timeMs)) found.set(key, entry)
        }
    const changed = [...after].flatMap(([key, entry]) => {
      const old = before.get(key)
      if (old && old.run === entry.run && old.timeMs === entry.timeMs) return []
      const [, pipeline, asset = '', partition = ''] = key.split('.')
      if (isInternalAsset(asset)) return []
      return [
        {
          asset: `${pipeline}/${asset}`,
          partition: decodeToken(partition),
          before: old && made(old),
          after: made(entry),
        },
      ]
    })
    return this.#cut('assets', changed)
  }

  async gates(): Promise<FlowDiff['gates']> {
    const [before, after] = await Promise.all([waitingIn(this.#a), waitingIn(this.#b)])
    const ids = [...new Set([...before.ids, ...after.ids])].filter((id) => before.ids.has(id) !== after.ids.has(id))
    const changed: FlowDiff['gates'][number][] = []
    // Each has changed, or is one that the other list is too short for.
    for (let i = 0; i < ids.length && changed.length <= this.#limit; i += READ_AHEAD)
      await inParts(ids.slice(i, i + READ_AHEAD), async (id) => {
        const [old, now] = await Promise.all([this.#a.gates.get(id), this.#b.gates.get(id)])
        if (old?.status !== now?.status) changed.push({ id, before: old?.status, after: now?.status })
      })
    if (before.isCut || after.isCut) this.more.push('gates')
    return this.#cut(
      'gates',
      changed.toSorted((x, y) => (x.id < y.id ? -1 : 1)),
    )
  }

  async scatters(runs: readonly ChangedRun[]): Promise<FlowDiff['scatters']> {
    const { shards } = this.#a.deps
    const keys = new Set<string>()
    for (let shard = 0; shard < shards; shard++)
      for (const flow of [this.#a, this.#b])
        for (const key of await flow.deps.docs.keys(shard, 'barrier.')) keys.add(key)
    // What began and was sealed in between is in neither state.
    for (const { id, doc } of runs)
      for (const asset of Object.keys(doc?.assets ?? {})) keys.add(stateKey.barrier(id, asset))
    const changed: FlowDiff['scatters'][number][] = []
    await inParts([...keys], async (key) => {
      const [, run = '', asset = ''] = key.split('.')
      const read = async (flow: FlowAt): Promise<ScatterView | undefined> => {
        // The type of document follows from its key.
        const barrier = (await flow.deps.docs.ofRun(run, key)) as BarrierState | undefined
        return barrier && viewOfBarrier(barrier)
      }
      const [before, after] = await Promise.all([read(this.#a), read(this.#b)])
      if (JSON.stringify(before) !== JSON.stringify(after)) changed.push({ id: `${run}.${asset}`, before, after })
    })
    return this.#cut(
      'scatters',
      changed.toSorted((x, y) => (x.id < y.id ? -1 : 1)),
    )
  }

  async schedules(): Promise<FlowDiff['schedules']> {
    const [before, after] = await Promise.all(
      [this.#a, this.#b].map(async (flow) => {
        const all = await flow.schedules.list({ removed: true })
        return new Map(all.map((schedule) => [schedule.name, schedule]))
      }),
    )
    // When it is due next follows from the time.
    const text = (schedule: ScheduleView | undefined): string => JSON.stringify({ ...schedule, next: undefined })
    const changed = [...new Set([...(before?.keys() ?? []), ...(after?.keys() ?? [])])].flatMap((name) => {
      const [old, now] = [before?.get(name), after?.get(name)]
      return text(old) === text(now) ? [] : [{ name, before: old, after: now }]
    })
    return this.#cut('schedules', changed)
  }

  #cut<T>(kind: string, all: readonly T[]): T[] {
    if (all.length > this.#limit && !this.more.includes(kind)) this.more.push(kind)
    return all.slice(0, this.#limit)
  }
}

async function waitingIn({ deps }: FlowAt): Promise<{ readonly ids: ReadonlySet<string>; readonly isCut: boolean }> {
  const gates = await waitingGates(deps, GATES_MAX + 1, undefined)
  const ids = gates.slice(0, GATES_MAX).map(({ run, asset, gate }) => `${run}.${asset}.${gate}`)
  return { ids: new Set(ids), isCut: gates.length > GATES_MAX }
}

async function runIn(flow: FlowAt, run: string): Promise<RunState | undefined> {
  // The type of document follows from its key.
  return (await flow.deps.docs.ofRun(run, stateKey.run(run))) as RunState | undefined
}

function viewed(doc: RunState | undefined): RunView['status'] | undefined {
  return doc?.status
}

function made({ run, timeMs }: CatalogEntry): ValueMade {
  return { run, at: new Date(timeMs) }
}

async function inParts<T>(all: readonly T[], each: (one: T) => Promise<void>): Promise<void> {
  for (let i = 0; i < all.length; i += READ_AHEAD) await Promise.all(all.slice(i, i + READ_AHEAD).map(each))
}
