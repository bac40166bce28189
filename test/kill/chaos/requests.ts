/**
 * What users ask for while all goes wrong: scatters that end early and are redriven, chains of runs
 * of which each builds on the one before, triggers.
 */
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { jetstream } from '@nats-io/jetstream'
import { type Run, RunFailedError } from '../../../src/index.ts'
import { collect } from '../../kit/collect.ts'
import {
  chaos,
  healedFile,
  MIXED,
  mixedCancelled,
  mixedHurried,
  mixedStrict,
  mixedWhole,
  plain,
  plainNext,
} from '../programs/chaos.ts'
import type { Rig } from '../rig.ts'
import { surely } from './faults.ts'
import type { Patience } from './patience.ts'
import type { Random } from './random.ts'

const TIMES = 4

type List = [number, number, string][]

export interface Asked {
  readonly patience: Patience
  readonly troubles: string[]
  readonly runs: Run[]
}

function endOf(run: Run, patience: Patience): Promise<{ value: unknown } | { error: Error }> {
  return run.result({ signal: patience.signal }).then(
    (value) => ({ value }),
    (error: unknown) => ({ error: error instanceof Error ? error : new Error(String(error)) }),
  )
}

/** How an instance may end, by its key. */
function mayBe(n: number, healed: boolean, gentle: boolean): (text: string) => boolean {
  const wanted =
    healed || n % 6 > 1 ? [`ok ${n}`] : n % 6 === 0 ? [`terminal: terminal ${n}`] : [`error: failed ${n}, attempt 3`]
  return (text) => wanted.includes(text) || (!gentle && text.startsWith('worker_lost: '))
}

/**
 * Of a scatter that has ended: its counts, its list of failures, and what it says of itself, must
 * be one thing.
 */
async function examine(rig: Rig, run: Run, asset: string, healed: boolean, gentle: boolean): Promise<string[]> {
  const id = `${run.id}.${asset}`
  const wrong: string[] = []
  const facts = await surely(() => collect(rig.flow.history(run.id)))
  const closed = facts
    ?.filter(({ kind }) => kind === 'scatter.closed')
    .map(({ data }) => data as Record<string, unknown>)
  // The state bucket follows the log, and may be in the middle of being made again.
  let status = await surely(() => rig.flow.scatter.status(id))
  for (let look = 0; look < 300 && (!status || status.status === 'open'); look++) {
    await sleep(50)
    status = await surely(() => rig.flow.scatter.status(id))
  }
  const [end] = closed ?? []
  if (!status || !end || closed?.length !== 1)
    return [`${id} has ${closed?.length} ends, its status is ${status?.status}`]
  for (const field of ['status', 'total', 'succeeded', 'failed'] as const)
    if (end[field] !== status[field])
      wrong.push(`${id}: ${field} is ${end[field]} in its end, and ${status[field]} in its status`)
  const failures = await surely(() => collect(rig.flow.scatter.failures(id)))
  if (failures?.length !== status.failed)
    wrong.push(`${id}: ${failures?.length} failures are listed, of ${status.failed}`)
  for (const { key, error } of failures ?? []) {
    const text = `${error.code}: ${error.message}`
    if (!mayBe(Number(key), healed, gentle)(text)) wrong.push(`${id}: key ${key} is said to have failed with ${text}`)
  }
  return wrong
}

function wrongIn(list: List, where: string, healed: boolean, gentle: boolean): string[] {
  const wrong: string[] = []
  if (list.length !== MIXED) wrong.push(`${where} gave ${list.length} results, not ${MIXED}`)
  for (const [position, [index, key, text]] of list.entries())
    if (index !== position || key !== position || !mayBe(position, healed, gentle)(text))
      wrong.push(`${where}: result ${position} is ${index} ${key} ${text}`)
  return wrong
}

type Mixed = typeof mixedWhole

/** A scatter that ends by itself or early, and is redriven until nothing failed. */
async function mix(
  rig: Rig,
  asset: Mixed,
  run: Run,
  partition: string,
  asked: Asked,
  cancelAfterMs: number,
  gentle: boolean,
): Promise<void> {
  const { troubles } = asked
  const id = `${run.id}.${asset.name}`
  if (asset.name === mixedCancelled.name)
    void sleep(cancelAfterMs).then(() => surely(() => rig.flow.scatter.cancel(id, 'chaos')))
  let last = run
  let left: number | undefined
  for (let time = 1; time <= TIMES; time++) {
    const healed = time > 1
    const where = `${asset.name} ${last.id} (time ${time})`
    const end = await endOf(last, asked.patience)
    const began = await surely(() => collect(rig.flow.history(last.id)))
    if ('error' in end && !(end.error instanceof RunFailedError)) {
      troubles.push(`${where}: ${String(end.error)}`)
      return
    }
    if (!began?.some(({ kind }) => kind === 'scatter.started')) return
    troubles.push(...(await examine(rig, last, asset.name, healed, gentle)))
    if ('value' in end) troubles.push(...wrongIn(end.value as List, where, healed, gentle))
    const status = await surely(() => rig.flow.scatter.status(`${last.id}.${asset.name}`))
    writeFileSync(healedFile(rig.notes, partition), '')
    if (left !== undefined && status?.total !== undefined && status.total !== left)
      troubles.push(`${where} ran ${status.total} again, of which ${left} had not succeeded`)
    left = status?.redrivable
    if (!status || status.redrivable === 0) {
      if ('value' in end && (status?.succeeded ?? 0) !== status?.total)
        troubles.push(`${where}: nothing is redrivable of ${JSON.stringify(status)}`)
      return
    }
    // Nobody would wait for the run of another redrive.
    if (time === TIMES) return
    const next = await surely(() => rig.flow.scatter.redrive(`${last.id}.${asset.name}`))
    if (!next) return
    last = next
    asked.runs.push(last)
  }
}

/** Each round: a value is made, and the next run builds on it, at once and on another shard. */
async function chain(
  rig: Rig,
  on: (shard: number, name: string) => string,
  asked: Asked,
  rounds: number,
): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const first = (await surely(() => rig.materialize(plain, on(round, `plain-${round}`), chaos))) as Run
    asked.runs.push(first)
    const end = await endOf(first, asked.patience)
    if (!('value' in end) || end.value !== first.id) {
      asked.troubles.push(
        `plain ${first.id} ended with ${JSON.stringify(end)} ${'error' in end ? String(end.error) : ''}`,
      )
      continue
    }
    const key = on(round + 1, `next-${round}`)
    const second = (await surely(() =>
      rig.flow.materialize(plainNext, { pipeline: chaos, key, upstream: 'none' }),
    )) as Run
    asked.runs.push(second)
    const next = await endOf(second, asked.patience)
    if (!('value' in next) || next.value !== first.id)
      asked.troubles.push(
        `plain_next ${second.id} should build on ${first.id}, and ended with ${'error' in next ? String(next.error) : String(next.value)}`,
      )
  }
}

/** Triggers whose acknowledgement came must lead to a run each; their message ids. */
async function trigger(rig: Rig, waitsMs: readonly number[]): Promise<string[]> {
  const accepted: string[] = []
  for (const [n, waitMs] of waitsMs.entries()) {
    await sleep(waitMs)
    const msgID = `trigger-${n}`
    await surely(async () => {
      // Shards of their own, so that the chain builds on its own values.
      const body = JSON.stringify({ partition: 'triggered' })
      await jetstream(rig.nc).publish(rig.names.trigger(chaos.name, plain.name), body, { msgID })
    })
    accepted.push(msgID)
  }
  return accepted
}

export interface Requests {
  /** The first ones, which may be paused. */
  readonly firsts: readonly { readonly run: Run; readonly asset: string }[]
  /** Resolves when all has ended. */
  go(patience: Patience): Promise<Asked & { readonly triggers: readonly string[] }>
}

export async function request(
  rig: Rig,
  on: (shard: number, name: string) => string,
  random: Random,
  gentle: boolean,
): Promise<Requests> {
  const assets = [mixedWhole, mixedCancelled, mixedHurried, mixedStrict] as const
  const firsts: { run: Run; asset: string; member: Mixed; partition: string }[] = []
  const cancelAfterMs = 300 + random() * 2500
  const waitsMs = Array.from({ length: 4 }, () => random() * 1200)
  for (const [shard, member] of assets.entries()) {
    const partition = member.name
    const key = on(shard, member.name)
    const run = await rig.flow.materialize(member, { pipeline: chaos, key, partition })
    firsts.push({ run, asset: member.name, member, partition })
  }
  return {
    firsts,
    go: async (patience) => {
      const asked: Asked = { patience, troubles: [], runs: firsts.map(({ run }) => run) }
      const [triggers] = await Promise.all([
        trigger(rig, waitsMs),
        chain(rig, on, asked, 4),
        ...firsts.map(({ member, run, partition }) => mix(rig, member, run, partition, asked, cancelAfterMs, gentle)),
      ])
      return { ...asked, triggers }
    },
  }
}
