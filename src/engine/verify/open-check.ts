/**
 * What is open has what will move it: its task on WORK, its decision on the log, its schedule, or
 * the run that it waits for. The reconciler of an engine repairs what is missing here; this says
 * so when nobody does.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { runTimerOf } from '../../../projections/run/end.ts'
import {
  type GateRow,
  type GateState,
  type Key,
  parseWaiting,
  stateKey,
  waitingUnder,
} from '../../../projections/state.ts'
import { factPath, timerPath } from '../../../streams/facts.ts'
import { assetName, parseGateId, parseRunId } from '../../../streams/ids.ts'
import { readDocIfAny } from '../../log/documents.ts'
import { storedGate } from '../../log/gate-doc.ts'
import { anyBetween, leaderGet, streamBounds, streamInfo } from '../../log/nats.ts'
import { runFact } from '../../log/run-fact.ts'
import { type Expected, type ExpectedSource, expectedOf, tasksOnWork } from '../maintenance/expected.ts'
import { foldedTo } from '../shard/checkpoint.ts'
import { type Check, NO_STATE, type ShardContext } from './check.ts'

const CHECK = 'open'
const FOLD_WAIT_MS = 10_000
const FOLD_LOOK_MS = 100
const DECISION_MS = 1000
/** An engine looks after deadlines that passed every five minutes. */
const LATE_MS = 10 * 60_000
const ENGINE = 'is an engine active? It enqueues what is missing within half a minute (`flowstone status` shows it)'

export class OpenCheck implements Check {
  readonly #at: ShardContext
  readonly #source: ExpectedSource
  #gates = 0

  constructor(at: ShardContext) {
    this.#at = at
    this.#source = {
      doc: (key) => this.#doc(key),
      keysUnder: (start) => this.#keysUnder(start),
      atLeast: () => at.clock.now(),
    }
  }

  async finish(): Promise<void> {
    const { shard, findings, clock, graceMs, connection, names } = this.#at
    if (await this.#hasNoState()) {
      findings.unseen(`the state of shard ${shard}`, NO_STATE)
      return
    }
    const before = await expectedOf(this.#source, clock.now() - graceMs)
    if (before.tasks.size + before.undecided.size > 0) {
      const present = await tasksOnWork(connection, names.work(shard))
      const isLost = (id: string): boolean => !present.has(id)
      await this.#judge(before, [...before.tasks.keys()].filter(isLost))
    }
    await this.#lookAtWaits()
    await this.#lookAtChildren()
    const looked = { tasks: before.tasks.size, runs: (await this.#keysUnder('open.')).length, gates: this.#gates }
    findings.looked(CHECK, shard, looked)
  }

  async #hasNoState(): Promise<boolean> {
    const { connection, names, shard } = this.#at
    const { last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
    return last > 0 && (await foldedTo(connection, names, shard)) === 0
  }

  async #judge(before: Expected, lost: readonly string[]): Promise<void> {
    const { shard, findings, names } = this.#at
    if (lost.length === 0 && before.undecided.size === 0) return
    const still = await this.#still()
    if (!still) return
    for (const id of lost) {
      const effect = still.tasks.get(id)
      if (!effect) continue
      const { run, asset } = effect.task
      const message = `task ${id} of run ${run}, asset ${asset}, is not on ${names.work(shard)}, and the state waits for it`
      findings.add({ check: CHECK, kind: 'task_missing', shard, document: stateKey.run(run), message, advice: ENGINE })
    }
    const undecided = [...before.undecided].filter((run) => still.undecided.has(run))
    if (undecided.length === 0) return
    await sleep(DECISION_MS)
    const left = await this.#still()
    for (const run of undecided)
      if (left?.undecided.has(run)) {
        const message = `run ${run} waits for a decision of an engine, which is not on the log`
        findings.add({
          check: CHECK,
          kind: 'run_undecided',
          shard,
          document: stateKey.run(run),
          message,
          advice: ENGINE,
        })
      }
  }

  /** What is expected once all of the log is folded; undefined when no engine folds it. */
  async #still(): Promise<Expected | undefined> {
    const { connection, names, shard, findings } = this.#at
    const { last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
    const untilMs = performance.now() + FOLD_WAIT_MS
    for (;;) {
      const from = (await foldedTo(connection, names, shard)) + 1
      if (!(await connection.read((nc) => anyBetween(nc, names.log(shard), from, last)))) break
      if (performance.now() > untilMs) {
        findings.unseen(`what is open in shard ${shard}`, 'no engine folds its log; start one')
        return undefined
      }
      await sleep(FOLD_LOOK_MS)
    }
    return await expectedOf(this.#source, Number.POSITIVE_INFINITY)
  }

  /** Schedules of gates, of runs and of scatters. */
  async #lookAtWaits(): Promise<void> {
    const { clock } = this.#at
    for (const rest of await this.#keysUnder('waiting.')) {
      const key = `waiting.${rest}`
      const mark = parseWaiting(key)
      const doc = mark && (await this.#doc<GateRow | GateState>(mark.doc))
      for (const gate of waitingUnder(key, doc)) await this.#lookAtGate(gate)
    }
    for (const id of await this.#keysUnder('open.')) {
      const run = await this.#doc(stateKey.run(id))
      const timer = run && runTimerOf(run)
      if (!timer || run.finishedMs !== undefined || timer.dueMs < clock.now()) continue
      const { name, ids } = timer.fact
      await this.#mustStand(factPath(name, ids), timer.dueMs, stateKey.run(id), async () => {
        const now = await this.#doc(stateKey.run(id))
        return now !== undefined && now.finishedMs === undefined && runTimerOf(now)?.fact.name === name
      })
    }
  }

  async #lookAtGate({ run, asset, gate, deadlineMs, deadlines }: GateState): Promise<void> {
    const { clock, shard, findings } = this.#at
    this.#gates += 1
    if (deadlineMs === undefined) return
    const ids = { run, asset: assetName(asset), gate }
    const isSame = async (): Promise<boolean> => {
      const now = await storedGate((key) => this.#doc(key), { run, asset, gate })
      return now?.status === 'waiting' && now.deadlines === deadlines
    }
    if (deadlineMs > clock.now())
      return await this.#mustStand(factPath('gate.timer_fired', ids), deadlineMs, stateKey.gates(ids), isSame)
    if (clock.now() - deadlineMs < LATE_MS || !(await isSame())) return
    const message = `gate ${run}.${asset}.${gate} waits, though its deadline passed at ${new Date(deadlineMs).toISOString()}`
    findings.add({ check: CHECK, kind: 'gate_late', shard, document: stateKey.gates(ids), message, advice: ENGINE })
  }

  /** The schedule that brings a fact, for as long as `isWaited`. */
  async #mustStand(fired: string, dueMs: number, document: string, isWaited: () => Promise<boolean>): Promise<void> {
    const { connection, names, shard, clock, findings, graceMs } = this.#at
    const path = timerPath(fired) ?? fired
    const isThere = async (of: string): Promise<boolean> => {
      const query = { last_by_subj: names.fact(shard, of) }
      return (await connection.read((nc) => leaderGet(nc, names.log(shard), query))) !== undefined
    }
    if (await isThere(path)) return
    // It fires as it is looked for, or is on its way.
    await sleep(Math.min(DECISION_MS, graceMs))
    if ((await isThere(path)) || !(await isWaited())) return
    // It was due meanwhile: what it brought may be folded next.
    if (dueMs <= clock.now()) return
    const message = `the schedule ${path} is not on the log; nothing ends what document ${document} waits for`
    const advice = 'an engine sets it again once the time has passed; until then answer the gate, or cancel the run'
    findings.add({ check: CHECK, kind: 'schedule_missing', shard, fact: path, document, message, advice })
  }

  /** Runs that gates wait for. */
  async #lookAtChildren(): Promise<void> {
    const { clock, graceMs } = this.#at
    for (const rest of await this.#keysUnder('child.')) {
      const at = parseGateId(rest)
      const gate = await storedGate((key) => this.#doc(key), at)
      if (gate?.status !== 'waiting' || !gate.child || gate.openedMs > clock.now() - graceMs) continue
      this.#gates += 1
      await this.#lookAtChild(gate, gate.child.run)
    }
  }

  async #lookAtChild(gate: GateState, child: GateState['run']): Promise<void> {
    const { findings, shard, shards } = this.#at
    const of = parseRunId(child)
    const read = async (name: 'run.requested' | 'run.finished'): Promise<boolean> =>
      of.shard < shards && (await runFact(this.#at, child, name, { run: child })) !== undefined
    if ((await read('run.requested')) && !(await read('run.finished'))) return
    await sleep(DECISION_MS)
    const now = await storedGate((key) => this.#doc(key), gate)
    if (now?.status !== 'waiting') return
    const [kind, what] = (await read('run.requested'))
      ? ['child_ended', `has ended, and nobody told it`]
      : ['child_missing', 'was never requested']
    const document = stateKey.gates(gate)
    const message = `gate ${gate.run}.${gate.asset}.${gate.gate} waits for run ${child}, which ${what}`
    findings.add({ check: CHECK, kind, shard, document, message, advice: ENGINE })
  }

  async #doc<D>(key: Key<D>): Promise<D | undefined> {
    const { connection, names, shard, pace } = this.#at
    await pace.took(1)
    // The key's type says what is stored under it. Only this project writes here.
    return (await readDocIfAny(connection, names, names.stateBucket(shard), key)) as D | undefined
  }

  async #keysUnder(start: string): Promise<string[]> {
    const { connection, names, shard } = this.#at
    const bucket = names.stateBucket(shard)
    const prefix = names.kvSubject(bucket, start)
    const info = await connection.read((nc) => streamInfo(nc, names.kvStream(bucket), `${prefix}>`))
    return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
  }
}
