/** What must hold at the end, by the log, by what processes noted, and by the server. */
import { setTimeout as sleep } from 'node:timers/promises'
import { jetstreamManager } from '@nats-io/jetstream'
import { expect } from 'vitest'
import { parseLeaseId } from '../../../projections/scatter/lease-id.ts'
import type { HistoryEntry, Run } from '../../../src/index.ts'
import { headerMap } from '../../../src/log/nats.ts'
import { factIfAny } from '../../../src/log/read-fact.ts'
import type { Fact } from '../../../streams/facts.ts'
import { collect } from '../../kit/collect.ts'
import { until } from '../../kit/until.ts'
import type { Answer } from '../outside.ts'
import { BATCHED, GATED, LIMITED, POISON, POISONED, READ, REDRIVEN, wayOf } from '../programs/chaos.ts'
import type { Rig } from '../rig.ts'
import type { Wild } from './faults.ts'

/** All facts there are. */
export async function factsOnLog(rig: Rig, shards: number): Promise<Fact[]> {
  const jsm = await jetstreamManager(rig.nc)
  const facts: Fact[] = []
  for (let shard = 0; shard < shards; shard++) {
    for (let next = 1, isMore = true; isMore; ) {
      isMore = false
      try {
        const batch = { seq: next, batch: 500 }
        for await (const { subject, seq, data, header, time } of await jsm.direct.getBatch(
          rig.names.log(shard),
          batch,
        )) {
          isMore = true
          next = seq + 1
          const stored = { subject, seq, timeMs: time.getTime(), payload: data, headers: headerMap(header) }
          const fact = factIfAny(rig.names, shard, stored)
          if (fact) facts.push(fact)
        }
      } catch (error) {
        if (!String(error).includes('message not found')) throw error
      }
    }
  }
  return facts
}

interface Begun {
  readonly run: string
  readonly asset: string
  readonly index: string
  readonly attempt: number
  readonly pid: number
  readonly atMs: number
}

export function begunIn(lines: readonly string[]): Begun[] {
  return lines.flatMap((line) => {
    const [sign, run = '', asset = '', index = '', attempt, pid, ms] = line.split(' ')
    if (sign !== 'x') return []
    return [{ run, asset, index, attempt: Number(attempt), pid: Number(pid), atMs: Number(ms) }]
  })
}

/**
 * Clocks of this host and of the server's timestamps are one; this is for what lies between reading
 * and writing them.
 */
const NEAR_MS = 60
/**
 * A worker hears of a pause by a notification of the engine. Where no engine runs, it looks by
 * itself. It trusts a task for 500 ms. The fact of that task was 250 ms old at most. The worker
 * looks again 1500 ms later at the latest.
 */
const PAUSED_MS = 2300

type Holds = Pick<Wild, 'pauses' | 'resumes'>

/** Whose process is well, as far as the test knows. */
type IsWell = (pid: number, atMs: number) => boolean

/** Begun after the end was stored, though nobody who ran it before was in trouble. */
export function againAfterEnd(facts: readonly Fact[], begun: readonly Begun[], isWell: IsWell): string[] {
  const ends = new Map<string, number>()
  for (const fact of facts) {
    if (fact.name === 'asset.materialized') ends.set(`${fact.ids.run} ${fact.ids.asset} -`, fact.timeMs)
    if (fact.name !== 'scatter.outcomes') continue
    const none = new Set([...(fact.data.errors ?? []), ...(fact.data.suspended ?? [])].map(([k]) => k))
    for (const [k, index] of fact.data.at.entries()) {
      const id = `${fact.ids.run} ${fact.ids.asset} ${index}`
      if (!none.has(k) && !ends.has(id)) ends.set(id, fact.timeMs)
    }
  }
  const wrong: string[] = []
  const unwell = new Set<string>()
  for (const one of begun.toSorted((a, b) => a.atMs - b.atMs)) {
    const id = `${one.run} ${one.asset} ${one.index}`
    const endedMs = ends.get(id)
    if (endedMs !== undefined && one.atMs > endedMs + NEAR_MS && !unwell.has(id) && isWell(one.pid, one.atMs))
      wrong.push(`${id} was begun by ${one.pid} ${Math.round(one.atMs - endedMs)} ms after its end was stored`)
    if (!isWell(one.pid, Number.POSITIVE_INFINITY)) unwell.add(id)
  }
  return wrong
}

/**
 * Begun once, and once more for each time that it is reported to have failed, to be lost, or to
 * have been handed back.
 */
export function begunTooOften(facts: readonly Fact[], begun: readonly Begun[]): string[] {
  const may = new Map<string, number>()
  const again = (id: string): void => void may.set(id, (may.get(id) ?? 1) + 1)
  for (const fact of facts) {
    if (fact.name === 'attempt.ended') again(`${fact.ids.run} ${fact.ids.asset} -`)
    if (fact.name === 'scatter.outcomes')
      for (const [k] of fact.data.errors ?? []) again(`${fact.ids.run} ${fact.ids.asset} ${fact.data.at[k]}`)
    if (fact.name !== 'lease.lost' && fact.name !== 'lease.returned') continue
    const range = parseLeaseId(fact.data.lease)
    if (!range) continue
    for (let i = fact.name === 'lease.returned' ? (fact.data.from ?? range.from) : range.from; i < range.to; i++)
      again(`${fact.ids.run} ${fact.ids.asset} ${i}`)
  }
  const times = new Map<string, number>()
  for (const { run, asset, index } of begun) {
    const id = `${run} ${asset} ${index}`
    times.set(id, (times.get(id) ?? 0) + 1)
  }
  return [...times]
    .filter(([id, count]) => count > (may.get(id) ?? 1))
    .map(([id, count]) => `${id} was begun ${count} times, and should be at most ${may.get(id) ?? 1}`)
}

/**
 * What was begun while its scatter was paused: after a pause, and before any resume that ended
 * later than that.
 */
export function begunPaused({ pauses, resumes }: Holds, begun: readonly Begun[], isWell: IsWell): string[] {
  return pauses.flatMap(({ run, asset, fromMs, toMs }) => {
    const untilMs = resumes
      .filter((one) => one.run === run && one.asset === asset && one.returnedMs > fromMs)
      .reduce((ms, { calledMs }) => Math.min(ms, calledMs), toMs)
    return begun
      .filter((one) => one.run === run && one.asset === asset && one.atMs > fromMs + PAUSED_MS && one.atMs < untilMs)
      .filter(({ pid, atMs }) => isWell(pid, atMs))
      .map(
        ({ index, pid, atMs }) =>
          `${run} ${asset} ${index} was begun by ${pid} ${Math.round(atMs - fromMs)} ms after its pause`,
      )
  })
}

/** Attempts that were charged to a worker that died. */
export function lostIn(facts: readonly Fact[]): string[] {
  return facts.flatMap((fact) => {
    if (fact.name === 'lease.lost')
      return [`${fact.shard}:${fact.seq} lease ${fact.ids.run} ${fact.ids.asset} ${fact.data.lease} lost`]
    if (fact.name === 'attempt.ended' && fact.data.outcome === 'lost')
      return [`${fact.shard}:${fact.seq} ${fact.ids.run} ${fact.ids.asset} attempt ${fact.ids.attempt} lost`]
    if (fact.name === 'scatter.outcomes' && fact.data.errors?.some(([, { outcome }]) => outcome === 'lost'))
      return [`${fact.shard}:${fact.seq} ${fact.ids.run} ${fact.ids.asset} ${fact.data.resumes} lost`]
    return []
  })
}

/** Every request has an end, and every trigger that was taken a run. */
export function unanswered(facts: readonly Fact[], triggers: readonly string[]): string[] {
  const open = new Set<string>()
  const triggered = new Set<string | undefined>()
  for (const fact of facts) {
    if (fact.name !== 'run.requested') continue
    open.add(fact.ids.run)
    triggered.add(fact.data.trigger?.msgId)
  }
  for (const fact of facts) if (fact.name === 'run.finished') open.delete(fact.ids.run)
  const lost = triggers.filter((id) => !triggered.has(id))
  return [...[...open].map((run) => `run ${run} has no end`), ...lost.map((id) => `trigger ${id} led to no run`)]
}

interface Stretch {
  readonly pid: number
  readonly index: number
  readonly fromMs: number
  readonly toMs: number
}

/** When instances of `limited` ran in processes that were well, while there was a server. */
export function stretches(
  lines: readonly string[],
  troubled: ReadonlyMap<number, number>,
  away: Wild['away'],
): Stretch[] {
  const begun = new Map<string, number>()
  const found: Stretch[] = []
  for (const line of lines) {
    const [sign, pid, index, ms] = line.split(' ')
    const key = `${pid} ${index}`
    if (sign === '+') begun.set(key, Number(ms))
    else if (sign === '-') {
      const fromMs = begun.get(key) ?? 0
      const toMs = Number(ms)
      const isWell = toMs < (troubled.get(Number(pid)) ?? Number.POSITIVE_INFINITY)
      if (isWell && !away.some(([from, to]) => toMs > from && fromMs < to))
        found.push({ pid: Number(pid), index: Number(index), fromMs, toMs })
    }
  }
  return found
}

export function mostAtATime(found: readonly Stretch[]): number {
  return Math.max(
    0,
    ...found.map(({ fromMs }) => found.filter((one) => one.fromMs <= fromMs && one.toMs > fromMs).length),
  )
}

export function mostWithin(ms: number, found: readonly Stretch[]): number {
  return Math.max(
    0,
    ...found.map(({ fromMs }) => found.filter((one) => one.fromMs >= fromMs && one.fromMs < fromMs + ms).length),
  )
}

export function expectTruth(answers: readonly Answer[], facts: readonly HistoryEntry[]): void {
  const ends = new Map<string, { outcome: string; reason?: string }>()
  for (const { kind, ids, data } of facts) {
    if (kind !== 'gate.resolved' || !('outcome' in data)) continue
    const id = `${ids.run}.${ids.asset}.${ids.gate}`
    expect(ends.has(id), `${id} ended twice`).toBe(false)
    ends.set(id, { outcome: String(data.outcome) })
  }
  const accepted = new Map<string, string>()
  for (const { gate, value, told } of answers) {
    const outcome = ends.get(gate)?.outcome
    const wanted = {
      accepted: 'signaled',
      repeated: 'signaled',
      already_signaled: 'signaled',
      expired: 'timed_out',
      cancelled: 'cancelled',
    }[told]
    expect(outcome, `${gate} told ${told}`).toBe(wanted)
    if (told !== 'accepted' && told !== 'repeated') continue
    expect(accepted.get(gate) ?? value, `${gate} took two`).toBe(value)
    accepted.set(gate, value)
  }
}

export function expectValues(value: Record<string, unknown>, losses: number, gentle: boolean): void {
  expect(value.batched).toBe(BATCHED)
  expect(value.read).toEqual({ count: READ, sum: (READ * (READ - 1)) / 2, inOrder: true })
  expect(value.limited).toEqual({ count: LIMITED, sum: (LIMITED * (LIMITED - 1)) / 2, inOrder: true })
  const list = value.gated as [number, string][]
  expect(list.map(([index]) => index)).toEqual(Array.from({ length: GATED }, (_, i) => i))
  for (const [index, got] of list) {
    const way = wayOf(index)
    const wanted = {
      never: ['failed gate_timeout'],
      cancel: ['failed gate_cancelled'],
      twice: [`twice ${index}`, `other ${index}`],
      chain: ['second'],
    }[way as string] ?? [`${way} ${index}`]
    expect(wanted, `instance ${index} (${way})`).toContain(got)
  }
  if (gentle) return
  const others = value.poisoned as [number, string][]
  expect(others.map(([index]) => index)).toEqual(Array.from({ length: POISONED }, (_, i) => i))
  expect(others[POISON]).toEqual([POISON, 'failed worker_lost'])
  // Beside the poisonous one nobody fails; but the test kills too, and may take what runs alone.
  const failed = others.filter(([index, got]) => index !== POISON && got !== `once ${index}`)
  for (const one of failed) expect(one[1]).toBe('failed worker_lost')
  expect(failed.length).toBeLessThanOrEqual(losses)
}

export function expectRedriven([first, second]: readonly [number, string][][]): void {
  const all = Array.from({ length: REDRIVEN }, (_, i) => i)
  expect(first).toEqual(all.map((i) => [i, i % 2 === 0 ? `redriven ${i}` : 'failed gate_cancelled']))
  expect(second).toEqual(all.map((i) => [i, `redriven ${i}`]))
}

/** Nothing is left over: no task, no schedule, no limited queue, no gate, no slot. */
export async function expectNothingLeft(rig: Rig, runs: readonly Run[], shards: number): Promise<void> {
  let found: string[] = []
  await until('nothing is left', async () => {
    found = []
    for (let shard = 0; shard < shards; shard++) found.push(...(await leftOn(rig, runs, shard)))
    const buckets = await rig.flow.limiter.list()
    for (const { bucket, slots } of buckets)
      if (slots && slots.count > 0) found.push(`slots of ${bucket}: ${slots.count}`)
    // A look costs as much as the work that it waits for.
    if (found.length > 0) await sleep(300)
    return found.length === 0
  }).catch(() => undefined)
  expect(found).toEqual([])
}

async function leftOn(rig: Rig, runs: readonly Run[], shard: number): Promise<string[]> {
  const jsm = await jetstreamManager(rig.nc)
  const limitedQueues = (await collect(jsm.consumers.list(rig.names.work(shard)))).filter(({ name }) =>
    rig.names.parseLimitedQueue(name),
  )
  const work = await jsm.streams.info(rig.names.work(shard), { subjects_filter: '>' })
  const log = await jsm.streams.info(rig.names.log(shard), { subjects_filter: '>' })
  const all = (await Promise.all(runs.map(({ id }) => rig.flow.gates.list(id)))).flat()
  // An engine that was away while a gate timed out, and was answered, still gives it its next
  // timer, which means nothing.
  const over = new Set(all.filter(({ status }) => status !== 'waiting').map(({ id }) => `gate.${id}.timer`))
  const isOver = (subject: string): boolean => over.has(subject.slice(subject.indexOf('.gate.') + 1))
  const gates = all.filter(({ status }) => status === 'waiting')
  const waiting = await rig.flow.gates.waiting()
  return [
    ...limitedQueues.map(({ name }) => `limited queue ${name}`),
    ...Object.keys(work.state.subjects ?? {}),
    ...Object.keys(log.state.subjects ?? {}).filter((subject) => subject.endsWith('.timer') && !isOver(subject)),
    ...gates.map(({ id }) => `waits: ${id}`),
    ...waiting.map(({ id }) => `is said to wait: ${id}`),
  ]
}
