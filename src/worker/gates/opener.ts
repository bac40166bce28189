/**
 * The gates of one execution of an asset's code. Their ids are counted, so an execution that takes
 * the place of a lost one finds what that opened, and need not start the outside job twice.
 */
import type { ZodType } from 'zod'
import type { GateIds } from '../../../projections/effects.ts'
import { gateTimer } from '../../../projections/gate/gate.ts'
import { FlowStoneError, InvalidError, TerminalError } from '../../../streams/errors.ts'
import { type Fact, type FactOf, factPath } from '../../../streams/facts.ts'
import type { GateCreated } from '../../../streams/gate-schemas.ts'
import { type AssetName, assetName, parseRunId, type RunId } from '../../../streams/ids.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { TraceContext } from '../../../streams/trace.ts'
import {
  type ApprovalOptions,
  ChildRun,
  type ChildSpec,
  type GateOptions,
  type GateSpec,
  type OpenedGate,
  parseApproval,
  parseGate,
  Suspension,
} from '../../define/gates.ts'
import type { ChildOptions } from '../../define/run-options.ts'
import { SecretAddress } from '../../define/secret-address.ts'
import { takeEarly } from '../../gates/early.ts'
import type { Refusals } from '../../gates/refused.ts'
import type { GateSettings } from '../../gates/settings.ts'
import { hashOfToken } from '../../gates/token.ts'
import { callbackUrl } from '../../gates/url.ts'
import type { Io } from '../../io/manager.ts'
import type { AppendedOnce, Appender } from '../../log/appender.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import { factEntry, timerEntry } from '../../log/entries.ts'
import { type Entry, leaderGet } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import { isAway } from '../../log/unreachable.ts'
import { unlessAborted } from '../../options/timer.ts'
import { emit } from '../../telemetry.ts'
import { traceFrom } from '../../tracing.ts'
import type { SignalSource } from '../attempt/run-code.ts'
import { type ChildDeps, checkChild, childOf } from './children.ts'

const AGAIN_MS = 200
/** How far a clock may be ahead of that of the server which stores a gate. */
const CLOCK_SLACK_MS = 500

/** What a gate opener needs of its worker. */
export interface GateOpenerDeps {
  /** The worker. */
  readonly id: string
  readonly names: Names
  readonly connection: Connection
  readonly clock: ServerClock
  readonly gates: GateSettings
  readonly refusals: Pick<Refusals, 'add'>
  readonly io: Io
  readonly logOf: (shard: number) => Appender
  readonly children: ChildDeps
}

/** Where an execution stands in its run. */
export interface Execution {
  readonly shard: number
  readonly run: string
  readonly pipeline: string
  readonly asset: string
  /** What the ids of its gates begin with. */
  readonly prefix: string
  /** Its ordinal, or that of the lost one in whose place it runs. */
  readonly attempt: number
  readonly index?: number
  readonly keyChunk?: number
  /** Of gates that name none. */
  readonly payloadSchema?: ZodType | undefined
  /** Of its run. */
  readonly trace?: TraceContext | undefined
}

/** A gate and what has to be stored for it; nothing where it stands on the log already. */
interface Prepared {
  readonly gate: string
  readonly entries: readonly Entry[]
  readonly spec: GateSpec
  /** As of now: a gate that stands on the log already may have been opened with another secret. */
  readonly token: string
  readonly deadlineMs: number | undefined
}

/**
 * What was tried and not answered: it may be stored all the same. Another execution stored it with
 * other deadlines, and before this one began.
 */
interface Tried {
  /** The server's time when it was tried first. */
  readonly sinceMs: number
  readonly deadlines: Set<number | undefined>
}

export class GateOpener {
  readonly #shared: GateOpenerDeps
  readonly #at: Execution
  readonly #run: RunId
  readonly #asset: AssetName
  readonly #opened = new Set<string>()
  #asked = false
  #count = 0
  #waitsAt: Prepared | undefined

  constructor(shared: GateOpenerDeps, at: Execution) {
    this.#shared = shared
    this.#at = at
    this.#run = parseRunId(at.run).id
    this.#asset = assetName(at.asset)
  }

  /** `ctx.openGate`. */
  readonly open = async (options: GateOptions | undefined, source: SignalSource): Promise<OpenedGate> =>
    await this.#open(this.#parse(options), source)

  /** `ctx.openApproval`. */
  readonly openApproval = async (options: ApprovalOptions, source: SignalSource): Promise<OpenedGate> =>
    await this.#open(parseApproval(options), source)

  async #open(spec: GateSpec, source: SignalSource): Promise<OpenedGate> {
    const gate = this.#nextGate()
    const before: Tried = { sinceMs: this.#shared.clock.now(), deadlines: new Set() }
    const { token, isNew } = await this.#whileAway(source, () => this.#store(gate, spec, before))
    this.#opened.add(gate)
    // Also at one that stood there: who opened it may have died before it looked.
    await this.#whileAway(source, () => this.#takeEarly({ gate, spec }))
    const { baseUrl } = this.#shared.gates
    const address = {
      token,
      get callbackUrl() {
        return callbackUrl(baseUrl, token)
      },
    }
    const wait = (): Suspension => new Suspension({ opened: gate })
    return Object.assign(new SecretAddress(() => address), { id: this.#idOf(gate), isNew, wait })
  }

  async #store(
    gate: string,
    spec: GateSpec,
    before: Tried,
  ): Promise<{ readonly token: string; readonly isNew: boolean }> {
    // Anew each time: what waits there has its whole time.
    const prepared = this.#prepare(spec, gate)
    if ((await this.#onceStored(prepared, before.deadlines)) === 'stored') {
      this.#tell(prepared)
      return { token: prepared.token, isNew: true }
    }
    const { data, timeMs } = await this.#created(gate)
    const isNew =
      before.deadlines.has(data.deadlineMs) &&
      (data.deadlineMs !== undefined || timeMs > before.sinceMs - CLOCK_SLACK_MS)
    if (isNew) this.#tell(prepared)
    return { token: this.#shared.gates.keys.sign(this.#idOf(gate), data.keyId), isNew }
  }

  async #onceStored({ entries, deadlineMs }: Prepared, tried: Set<number | undefined>): Promise<AppendedOnce> {
    try {
      return await this.#log.appendOnce(...entries)
    } catch (error) {
      tried.add(deadlineMs)
      throw error
    }
  }

  /** `ctx.signalGate`. */
  readonly signal = (options?: GateOptions): Suspension => this.#ask(this.#parse(options))

  /** `ctx.approval`. */
  readonly approval = (options: ApprovalOptions): Suspension => this.#ask(parseApproval(options))

  /** `ctx.run`. */
  readonly run = <V>(target: unknown, options: ChildOptions = {}): ChildRun<V> => {
    const child = { target, options }
    checkChild(child)
    this.#asked = true
    return new ChildRun<V>({ child })
  }

  /**
   * Throws InvalidError where the code asked for a gate and brought a value: without the `return`
   * nobody would be waited for, an approval not either.
   */
  checkValue(): void {
    if (this.#asked)
      throw new InvalidError(
        'ctx.signalGate, ctx.approval and ctx.run wait only where what they give is returned: return ctx.signalGate({ … }), and go on in onSignal',
      )
  }

  #parse(options: GateOptions = {}): GateSpec {
    const { payloadSchema: payload } = this.#at
    return parseGate(payload && options.payloadSchema === undefined ? { ...options, payloadSchema: payload } : options)
  }

  #ask(spec: GateSpec): Suspension {
    this.#asked = true
    return new Suspension({ spec })
  }

  /** Stores what the execution waits at, and `more` with it, all or none. Returns the gate. */
  async suspend(suspension: Suspension, more: (gate: string) => readonly Entry[]): Promise<string> {
    const wanted = Suspension.of(suspension)
    if ('opened' in wanted) {
      if (!this.#opened.has(wanted.opened))
        throw new InvalidError('a gate that another execution opened was returned; open one with this ctx')
      const entries = more(wanted.opened)
      if (entries.length > 0) await this.#log.appendOnce(...entries)
      return wanted.opened
    }
    if ('child' in wanted) return await this.#suspendForRun(wanted.child, more)
    const prepared = this.#prepare(wanted.spec, this.#nextGate())
    const { gate } = prepared
    if ((await this.#log.appendOnce(...prepared.entries, ...more(gate))) === 'stored') {
      this.#tell(prepared)
    } else {
      // The execution that this one replaces opened it; or all of it is stored, and only the answer
      // was lost.
      await this.#created(gate)
      const entries = more(gate)
      if (entries.length > 0) await this.#log.appendOnce(...entries)
    }
    this.#opened.add(gate)
    this.#waitsAt = prepared
    return gate
  }

  /**
   * After `suspend`: a signal that was kept for the gate ends the wait. What waits there has done
   * its part, so a server that is away costs it nothing: it is asked again until `signal` is
   * aborted.
   */
  async takeKept(signal: AbortSignal): Promise<void> {
    const at = this.#waitsAt
    if (at) await this.#whileAway({ signal }, () => this.#takeEarly(at))
  }

  /** Does it again while the server is away, until the signal is aborted. */
  async #whileAway<T>(source: SignalSource, work: () => Promise<T>): Promise<T> {
    const { connection } = this.#shared
    for (;;) {
      try {
        return await work()
      } catch (error) {
        if (!isAway(error) || connection.isClosed) throw error
      }
      await unlessAborted(connection.ready(AGAIN_MS), source.signal)
    }
  }

  /** As `suspend`, at a gate that the end of a run opens. The engine starts the run. */
  async #suspendForRun(spec: ChildSpec, more: (gate: string) => readonly Entry[]): Promise<string> {
    const { names, id: worker, children } = this.#shared
    const { shard, run, pipeline, attempt, index, keyChunk, trace } = this.#at
    const gate = this.#nextGate()
    const ids = this.#idsOf(gate)
    const { id: child, request } = await childOf(children, pipeline, ids, spec)
    const data = {
      attempt,
      ...(index === undefined ? {} : { index }),
      ...(keyChunk === undefined ? {} : { keyChunk }),
      worker,
      child,
      request: { ...request, trace: request.trace ?? traceFrom({ namespace: names.ns, run, trace }) },
    }
    const entry = factEntry(names, shard, { name: 'child.requested', ids, data })
    if ((await this.#log.appendOnce(entry, ...more(gate))) === 'stored') return gate
    // As for a gate that was opened before.
    if (!(await this.#stored('child.requested', gate)))
      throw new FlowStoneError('unreadable', `the run that ${this.#idOf(gate)} waits for could not be asked for`)
    const entries = more(gate)
    if (entries.length > 0) await this.#log.appendOnce(...entries)
    return gate
  }

  /** What this execution opened and does not wait at. */
  left(except?: string): string[] {
    return [...this.#opened].filter((gate) => gate !== except)
  }

  get #log(): ReturnType<GateOpenerDeps['logOf']> {
    return this.#shared.logOf(this.#at.shard)
  }

  #idsOf(gate: string): GateIds {
    return { run: this.#run, asset: this.#asset, gate }
  }

  #idOf(gate: string): string {
    return `${this.#run}.${this.#asset}.${gate}`
  }

  #prepare(spec: GateSpec, gate: string): Prepared {
    const { names, clock, gates, id: worker } = this.#shared
    const { shard, attempt, index, keyChunk } = this.#at
    const ids = this.#idsOf(gate)
    const keyId = gates.keys.signing
    const token = gates.keys.sign(this.#idOf(gate), keyId)
    const deadlineMs = spec.timeoutMs === undefined ? undefined : Math.ceil(clock.now() + spec.timeoutMs)
    const data: GateCreated = {
      kind: spec.kind,
      attempt,
      ...(index === undefined ? {} : { index }),
      ...(keyChunk === undefined ? {} : { keyChunk }),
      worker,
      ...(deadlineMs === undefined ? {} : { deadlineMs }),
      retriesMs: spec.retriesMs,
      afterRetries: spec.afterRetries,
      ...(spec.metadata === undefined ? {} : { metadata: spec.metadata }),
      ...(spec.payload === undefined ? {} : { payload: spec.payload }),
      keyId,
      tokenHash: hashOfToken(token),
      ...(spec.correlationKey === undefined ? {} : { correlationHash: hashOfToken(spec.correlationKey) }),
    }
    const entries = [factEntry(names, shard, { name: 'gate.created', ids, data })]
    if (deadlineMs !== undefined) entries.push(timerEntry(names, shard, gateTimer(ids, 0), deadlineMs))
    if (data.correlationHash !== undefined)
      entries.push(factEntry(names, shard, { name: 'gate.correlated', ids: { hash: data.correlationHash }, data: ids }))
    return { gate, entries, spec, token, deadlineMs }
  }

  #nextGate(): string {
    this.#count += 1
    return `${this.#at.prefix}n${this.#count}`
  }

  async #stored(name: 'gate.created' | 'child.requested', gate: string): Promise<Fact | undefined> {
    const { connection, names } = this.#shared
    const { shard } = this.#at
    const subject = names.fact(shard, factPath(name, this.#idsOf(gate)))
    const message = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj: subject }))
    return message && factOf(names, shard, message)
  }

  async #created(gate: string): Promise<FactOf<'gate.created'>> {
    const fact = await this.#stored('gate.created', gate)
    if (fact?.name !== 'gate.created')
      throw new FlowStoneError('unreadable', `gate ${this.#idOf(gate)} could not be opened, nor read back`)
    return fact
  }

  #tell({ gate, spec }: Pick<Prepared, 'gate' | 'spec'>): void {
    emit('flowstone:gate.create', {
      gate: this.#idOf(gate),
      run: this.#run,
      asset: this.#asset,
      kind: spec.kind,
      ...(spec.timeoutMs === undefined ? {} : { timeoutMs: spec.timeoutMs }),
    })
  }

  /** A signal by the gate's correlation key may have come before the gate, and was kept. */
  async #takeEarly({ gate, spec }: Pick<Prepared, 'gate' | 'spec'>): Promise<void> {
    if (spec.correlationKey === undefined) return
    const { connection, names, io, refusals } = this.#shared
    const place = { connection, names, io, refusals, log: this.#log, shard: this.#at.shard }
    await takeEarly(place, hashOfToken(spec.correlationKey), this.#idsOf(gate), spec.payload)
  }
}

/** `ctx.fail`. */
export function fail(reason: string): never {
  throw new TerminalError(String(reason))
}
