/** What happens to a cluster of processes, and when: all of it drawn from a seed. */
import { setTimeout as sleep } from 'node:timers/promises'
import { jetstreamManager } from '@nats-io/jetstream'
import type { Run } from '../../../src/index.ts'
import { wallMs } from '../programs/chaos.ts'
import type { ServerProxy } from '../proxy.ts'
import type { Rig } from '../rig.ts'
import type { Pool } from './pool.ts'
import { oneOf, type Random } from './random.ts'

export type Fault =
  | 'kill worker'
  | 'stop worker'
  | 'drain worker'
  | 'worker network'
  | 'kill engine'
  | 'stop engine'
  | 'hand over engine'
  | 'engine network'
  | 'restart server'
  | 'rebuild'
  | 'delete state'
  | 'delete limits'
  | 'delete control'
  | 'delete work'
  | 'pause'

/**
 * Nothing that takes work from a worker but by its own will: not one attempt may be lost, and
 * nothing is run again that has ended.
 */
const GENTLE = {
  'drain worker': 4,
  'kill engine': 2,
  'stop engine': 2,
  'hand over engine': 2,
  'engine network': 3,
  rebuild: 1,
  'delete state': 1,
  'delete limits': 1,
  pause: 4,
} as const

const HARSH = {
  ...GENTLE,
  'drain worker': 2,
  'kill worker': 3,
  'stop worker': 3,
  'worker network': 4,
  'restart server': 2,
  'delete control': 1,
  'delete work': 1,
} as const

/** Times each of these happens at most: each costs seconds. */
const MOST: Readonly<Partial<Record<Fault, number>>> = {
  'restart server': 2,
  rebuild: 1,
  'delete state': 1,
  'delete limits': 1,
  'delete control': 1,
  'delete work': 1,
}

/** Faults that are left out. */
export const WITHOUT: ReadonlySet<string> = new Set((process.env.CHAOS_WITHOUT ?? '').split(','))

export interface Pause {
  readonly run: string
  readonly asset: string
  /** From when `pause` returned to when `resume` was called. */
  readonly fromMs: number
  toMs: number
}

/** A call of `resume`: the scatter went on at some time between. */
export interface Resume {
  readonly run: string
  readonly asset: string
  readonly calledMs: number
  readonly returnedMs: number
}

export interface Wild {
  readonly log: string[]
  /**
   * Times [from, to] in which limits could not be kept: no server, or what it knew of them was
   * deleted; and a little after.
   */
  readonly away: [number, number][]
  readonly pauses: Pause[]
  /** Two pauses of one scatter may overlap: the first resume ends both. */
  readonly resumes: Resume[]
  /** What must not happen. */
  readonly troubles: string[]
  /** What may cost attempts of what workers held. */
  losses: number
}

export interface Stage {
  readonly rig: Rig
  readonly shards: number
  readonly ackWaitMs: number
  readonly workers: Pool
  readonly engines: Pool
  /** Scatters that may be paused. */
  readonly pausable: readonly { readonly run: Run; readonly asset: string }[]
}

/**
 * A rebuild of a log of some hundred facts takes less than this, whatever else the machine does.
 */
const REBUILD_MS = 20_000
const SURELY_MS = 45_000

export async function goWild(stage: Stage, random: Random, gentle: boolean, forMs: number): Promise<Wild> {
  const wild: Wild = { log: [], away: [], pauses: [], resumes: [], troubles: [], losses: 0 }
  const beganMs = wallMs()
  const done = new Map<Fault, number>()
  const going: Promise<unknown>[] = []
  const weights: Partial<Record<Fault, number>> = gentle ? GENTLE : HARSH
  while (wallMs() - beganMs < forMs) {
    await sleep(150 + random() * 550)
    const what = oneOf(random, weights)
    const someMs = 200 + random() * 2600
    const count = (done.get(what) ?? 0) + 1
    const dice = Math.floor(random() * 4_294_967_296)
    if (WITHOUT.has(what) || count > (MOST[what] ?? Number.POSITIVE_INFINITY)) continue
    done.set(what, count)
    wild.log.push(`${Math.round(wallMs() - beganMs)} ${what} ${Math.round(someMs)} ${dice}`)
    const acting = act(stage, wild, what, someMs, dice)
    going.push(acting)
    // Others need a server.
    if (what === 'restart server') await acting
  }
  await Promise.all(going)
  return wild
}

/** The next may begin before this one has ended. */
async function act(stage: Stage, wild: Wild, what: Fault, someMs: number, dice: number): Promise<void> {
  const { rig, workers, engines, ackWaitMs } = stage
  const random = (): number => dice / 4_294_967_296
  switch (what) {
    case 'kill worker':
      wild.losses += 1
      return kill(workers, random)
    case 'stop worker':
      wild.losses += 1
      return stop(workers, random, someMs)
    case 'worker network':
      wild.losses += 1
      return disturb(workers, random, someMs)
    case 'drain worker':
      return drain(workers, random)
    case 'kill engine':
      return kill(engines, random)
    case 'stop engine':
      return stop(engines, random, someMs)
    case 'engine network':
      return disturb(engines, random, someMs)
    case 'hand over engine':
      return drain(engines, random)
    case 'restart server': {
      const fromMs = wallMs()
      wild.losses += 1
      await rig.killServer()
      await sleep(someMs / 4)
      await rig.startServer()
      wild.away.push([fromMs - ackWaitMs, wallMs() + 2 * ackWaitMs])
      return
    }
    case 'rebuild':
      return rebuild(stage, wild)
    case 'delete state':
      return remove(rig, rig.names.kvStream(rig.names.stateBucket(dice % stage.shards)))
    case 'delete control':
      return remove(rig, rig.names.kvStream(rig.names.controlBucket))
    case 'delete work':
      wild.losses += 1
      return remove(rig, rig.names.work(dice % stage.shards))
    case 'delete limits':
      wild.away.push([wallMs() - 1000, wallMs() + 4000])
      return remove(rig, rig.names.kvStream(rig.names.limitsBucket))
    case 'pause':
      return pause(stage, wild, someMs, dice)
    default:
      return what satisfies never
  }
}

function kill(pool: Pool, random: Random): Promise<void> {
  const member = pool.pick(random)
  if (member) pool.trouble(member)
  member?.child.signal('SIGKILL')
  return Promise.resolve()
}

async function stop(pool: Pool, random: Random, forMs: number): Promise<void> {
  const member = pool.pick(random)
  if (!member) return
  pool.trouble(member)
  member.child.signal('SIGSTOP')
  await sleep(forMs)
  member.child.signal('SIGCONT')
}

async function drain(pool: Pool, random: Random): Promise<void> {
  const member = pool.pick(random)
  if (member) await pool.drain(member)
}

async function disturb(pool: Pool, random: Random, forMs: number): Promise<void> {
  const member = pool.pick(random)
  if (!member) return
  pool.trouble(member)
  const { proxy } = member
  const ways: readonly ((proxy: ServerProxy) => Promise<void> | void)[] = [
    () => proxy.cut(),
    () => proxy.refuse(forMs),
    () => proxy.stall(forMs, 'both'),
    () => proxy.stall(forMs, 'up'),
    () => proxy.stall(forMs, 'down'),
    () => proxy.halfOpen(2 * forMs),
    () => proxy.slow(2 * forMs, 20 + forMs / 20),
  ]
  await ways[Math.floor(random() * 1000) % ways.length]?.(proxy)
}

async function rebuild({ rig, engines }: Stage, wild: Wild): Promise<void> {
  await engines.without(async () => {
    const fromMs = wallMs()
    for (;;) {
      const late = sleep(REBUILD_MS, 'late', { ref: false })
      const ended = await Promise.race([rig.flow.rebuild().then(() => 'done', String), late])
      if (ended === 'done') return
      if (ended === 'late' || wallMs() - fromMs > REBUILD_MS) {
        wild.troubles.push(`a rebuild did not end within ${REBUILD_MS} ms: ${ended}`)
        return
      }
      // The claim of an engine that was killed, or a server that is away.
      await sleep(100)
    }
  })
}

async function remove({ nc }: Rig, stream: string): Promise<void> {
  const jsm = await jetstreamManager(nc, { checkAPI: false }).catch(() => undefined)
  await jsm?.streams.delete(stream).catch(() => false)
}

async function pause({ rig, pausable }: Stage, wild: Wild, forMs: number, dice: number): Promise<void> {
  const { run, asset } = pausable[dice % pausable.length] ?? {}
  if (!run || asset === undefined) return
  const id = `${run.id}.${asset}`
  const resume = async (): Promise<void> => {
    const calledMs = wallMs()
    await surely(() => rig.flow.scatter.resume(id))
    wild.resumes.push({ run: run.id, asset, calledMs, returnedMs: wallMs() })
  }
  try {
    await rig.flow.scatter.pause(id, 'chaos')
  } catch {
    // Not begun yet; or the answer was lost, and it is paused all the same.
    await resume()
    return
  }
  const one: Pause = { run: run.id, asset, fromMs: wallMs(), toMs: Number.POSITIVE_INFINITY }
  wild.pauses.push(one)
  await sleep(forMs)
  one.toMs = wallMs()
  await resume()
}

/**
 * The server may be away for a moment; a scatter that has not begun cannot be resumed, and need
 * not.
 */
export async function surely<T>(act: () => Promise<T>): Promise<T | undefined> {
  const deadline = wallMs() + SURELY_MS
  for (;;) {
    try {
      return await act()
    } catch (error) {
      if (/no scatter|no run/.test(String(error))) return undefined
      if (wallMs() > deadline) throw error
      await sleep(100)
    }
  }
}
