/**
 * `flow.gates`: answer signal gates, look at them, and act on them, from any process. Questions
 * about one gate are read from the log, and so are exact; lists may lag it by some 50 ms.
 */

import { randomBytes, timingSafeEqual } from 'node:crypto'
import type { GateIds } from '../../projections/effects.ts'
import type { GateState } from '../../projections/state.ts'
import { ConflictError, FlowStoneError, InvalidError, SignalRejectedError } from '../../streams/errors.ts'
import type { FactOf } from '../../streams/facts.ts'
import { parseGateId, parseRunId } from '../../streams/ids.ts'
import { shown } from '../../streams/shown.ts'
import { checkText } from '../../streams/text.ts'
import { waitMs } from '../define/gates.ts'
import { prunedProblem } from '../log/pruned.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { reasonOf } from '../options/reason.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { emit } from '../telemetry.ts'
import { tracing } from '../tracing.ts'
import { decidedGate, decideGate } from './delivery.ts'
import type { GateDeps } from './deps.ts'
import { dropEarly, dropIfRefused, keepEarly } from './early.ts'
import { extendEntries, resolveEntry } from './entries.ts'
import { checkPayload, EARLY_MAX_BYTES } from './payload.ts'
import { type GateAt, GateReader } from './reader.ts'
import type { Refusals } from './refused.ts'
import type { GateSettings } from './settings.ts'
import { checkKey, hashOfKey, SIGNAL_OPTIONS, SOURCE_MAX, signalOf } from './signal.ts'
import { gateNamedIn, hashOfCorrelationKey, hashOfToken } from './token.ts'
import type { GateView, SignalAccepted, SignalOptions } from './types.ts'
import { callbackUrl } from './url.ts'
import { viewOfState } from './view.ts'
import { type Place, waitingGates } from './waiting.ts'

export const KEEP_MAX_MS = 24 * 3_600_000
const PAGE = 100
const PAGE_MAX = 1000
const READ_AHEAD = 64
const EXTEND_TRIES = 5

/**
 * `flow.gates`: looks at gates and answers them. A call that is too late throws
 * SignalRejectedError.
 */
export class Gates {
  readonly #deps: GateDeps
  readonly #settings: GateSettings
  readonly #read: GateReader
  readonly #refusals: Refusals | undefined

  /** `refusals`: none in the past. */
  constructor(deps: GateDeps, settings: GateSettings, refusals?: Refusals) {
    this.#deps = deps
    this.#settings = settings
    this.#read = new GateReader(deps)
    this.#refusals = refusals
  }

  /** The base URL at which external systems reach gates; undefined when none is set. */
  get baseUrl(): string | undefined {
    return this.#settings.baseUrl
  }

  /**
   * Answers the gate that a token names. `payload`: JSON, what `onSignal` gets. Resolves when the
   * signal is stored durably. A signal, a timeout and a cancel may race: the server takes one of
   * them, and the error of the others says which.
   *
   * Throws SignalRejectedError, whose `reason` is `malformed_token`, `invalid_signature`,
   * `not_found`, `already_signaled`, `expired`, `cancelled`, or `invalid_payload` (the gate then
   * keeps waiting).
   */
  async signal(token: string, payload?: unknown, options: SignalOptions = {}): Promise<SignalAccepted> {
    refuseUnknown('signal', options, SIGNAL_OPTIONS)
    const id = this.verify(token, options)
    return await this.#noting(options, async () => this.#signal(id, await this.#known(id), payload, options, token))
  }

  /** As `signal`, by id and with no token: for code that is trusted. */
  async signalById(id: string, payload?: unknown, options: SignalOptions = {}): Promise<SignalAccepted> {
    refuseUnknown('signalById', options, SIGNAL_OPTIONS)
    return await this.#noting(options, async () => this.#signal(id, await this.#known(id), payload, options))
  }

  /**
   * As `signal`, by the correlation key that the code of the asset gave the gate. Only for trusted
   * code, since correlation keys can be guessed. If several gates have the key, the newest one that
   * waits is answered. A gate that was answered is skipped only with an `idempotencyKey`, which
   * identifies a signal that is sent again.
   *
   * `keepFor`: how long a signal is kept whose gate does not exist yet. It answers the gate when
   * that is opened. At most 24 h, 64 KiB, and 10,000 of them.
   */
  async signalByCorrelationKey(
    correlationKey: string,
    payload?: unknown,
    options: SignalOptions & { readonly keepFor?: Duration } = {},
  ): Promise<SignalAccepted> {
    return await this.#noting(options, () => this.#signalByCorrelationKey(correlationKey, payload, options))
  }

  async #signalByCorrelationKey(
    correlationKey: string,
    payload: unknown,
    options: SignalOptions & { readonly keepFor?: Duration },
  ): Promise<SignalAccepted> {
    const { keepFor, ...given } = options
    refuseUnknown('signalByCorrelationKey', given, SIGNAL_OPTIONS)
    checkKey(given.idempotencyKey)
    const keepMs = keepFor === undefined ? undefined : parseDuration('keepFor', keepFor)
    if (keepMs !== undefined && !(keepMs > 0 && keepMs <= KEEP_MAX_MS))
      throw new InvalidError(`keepFor must be more than 0 and at most 24 h, got ${shown(keepFor)}`)
    await this.#deps.found()
    const hash = hashOfCorrelationKey(correlationKey)
    // A kept signal may have answered its gate before this call looks for the gate once more. The
    // key shows that it is the same signal, so the caller gets no `already_signaled`.
    const own = keepMs !== undefined && given.idempotencyKey === undefined
    const rest = own ? { ...given, idempotencyKey: randomBytes(18).toString('base64url') } : given
    let repeated = false
    for (let look = 1; ; look++) {
      const key = look > 1 ? rest.idempotencyKey : given.idempotencyKey
      const signalling =
        key === undefined ? this.#signalNamed(hash, payload, rest) : this.#deliver(hash, payload, rest, hashOfKey(key))
      const accepted = look > 1 ? await dropIfRefused(this.#deps, hash, signalling) : await signalling
      if (accepted) {
        if (look > 1) await dropEarly(this.#deps, hash)
        return look > 1 ? { ...accepted, repeated } : accepted
      }
      if (keepMs === undefined)
        throw new SignalRejectedError(
          'not_found',
          'no gate has this correlation key (keepFor would keep the signal for one)',
        )
      if (look > 1) return { status: 'accepted', gate: '', repeated }
      checkPayload(undefined, payload ?? null, EARLY_MAX_BYTES)
      const signal = await signalOf(this.#deps, payload, rest, { run: '', asset: 'early' })
      if (signal.payload === undefined) throw new FlowStoneError('internal', 'a signal without a payload')
      repeated = await keepEarly(this.#deps, hash, { ...signal, payload: signal.payload }, keepMs)
    }
  }

  /** The gate of this id, or undefined. Throws InvalidError for what is no gate's id. */
  async get(id: string): Promise<GateView | undefined> {
    const at = await this.#known(id)
    return at && (await this.#view(at))
  }

  /**
   * The id of the gate that a token names, whether the gate exists or not. Sends no request. Throws
   * SignalRejectedError for an invalid token. `attempt`: it is an attempt to answer, so a refusal
   * is noted for the gate.
   */
  verify(token: string, attempt?: Pick<SignalOptions, 'source'>): string {
    try {
      return this.#settings.keys.verify(token)
    } catch (error) {
      if (attempt && error instanceof SignalRejectedError) this.#note(error, gateNamedIn(token), attempt.source)
      throw error
    }
  }

  /**
   * The gate that a token names, or undefined. Throws SignalRejectedError for a token that is not
   * good.
   */
  async getByToken(token: string): Promise<GateView | undefined> {
    const at = await this.#known(this.#settings.keys.verify(token))
    const created = at && (await this.#read.created(at))
    if (created) checkToken(created.data.tokenHash, token)
    return created && (await this.#view(at))
  }

  /** The newest gate with this correlation key, or undefined. */
  async getByCorrelationKey(correlationKey: string): Promise<GateView | undefined> {
    await this.#deps.found()
    for await (const gate of this.#read.named(hashOfCorrelationKey(correlationKey))) {
      const view = await this.#view(gate)
      // In the past the newest of today was perhaps not open yet.
      if (view || !this.#deps.docs.past) return view
    }
    return undefined
  }

  /** All gates of a run, in the order in which they were opened. */
  async list(run: string): Promise<GateView[]> {
    await this.#deps.found()
    const all = parseRunId(run).shard < this.#deps.shards ? await this.#read.ofRun(run) : []
    const views: GateView[] = []
    for (let i = 0; i < all.length; i += READ_AHEAD) {
      const some = await Promise.all(all.slice(i, i + READ_AHEAD).map((ids) => this.#read.view(ids)))
      views.push(...some.flatMap((view) => view ?? []))
    }
    return await this.#withRefused(
      views.toSorted((a, b) => a.openedAt.getTime() - b.openedAt.getTime()),
      `${run}.>`,
    )
  }

  /**
   * Gates that wait, the soonest deadline first, `limit` (default 100, at most 1,000) of them.
   * `after`: the last one of the page before. From the state buckets.
   */
  async waiting(
    options: { readonly limit?: number; readonly after?: Pick<GateView, 'id' | 'deadline'> } = {},
  ): Promise<GateView[]> {
    refuseUnknown('waiting', options, ['limit', 'after'])
    const { limit = PAGE, after } = options
    if (!Number.isInteger(limit) || limit < 1 || limit > PAGE_MAX)
      throw new InvalidError(`limit must be a whole number from 1 to ${PAGE_MAX}, got ${limit}`)
    const from = after && placeOf(after)
    await this.#deps.found()
    const gates = await waitingGates(this.#deps, limit, from)
    return await this.#withRefused(await Promise.all(gates.map((gate) => this.#listed(gate))))
  }

  async #view(at: GateAt): Promise<GateView | undefined> {
    const [view, refused] = await Promise.all([this.#read.view(at), this.#refusals?.of(idOf(at))])
    return view && { ...view, refused }
  }

  async #withRefused(views: readonly GateView[], under?: string): Promise<GateView[]> {
    const ids = views.map(({ id }) => id)
    const refused = await this.#refusals?.ofAll(ids, under)
    return views.map((view) => ({ ...view, refused: refused?.get(view.id) }))
  }

  async #listed(gate: GateState): Promise<GateView> {
    const view = viewOfState(gate)
    if (!gate.large) return view
    const created = await this.#read.created(parseGateId(view.id))
    return { ...view, metadata: created?.data.metadata }
  }

  /**
   * Ends a gate: its asset is cancelled, or its instance fails with `gate_cancelled`. No error when
   * it was cancelled before. Throws ConflictError when it ended in another way, `not_found`.
   */
  async cancel(id: string, reason?: string): Promise<void> {
    const at = await this.#known(id)
    const given = reasonOf('gates.cancel', reason)
    const created = at && (await this.#read.created(at))
    if (!created) throw await this.#missing(id)
    const { names, logOf } = this.#deps
    const end = { outcome: 'cancelled', ...given, ...this.#said } as const
    const isSealed = await this.#read.isSealed(at, created)
    if (!isSealed && (await logOf(at.shard).appendOnce(resolveEntry(names, at.shard, at, end))) === 'stored') return
    const ended = await this.#read.resolved(at)
    if (ended?.data.outcome === 'cancelled') return
    throw new ConflictError(`gate ${id} cannot be cancelled: it has ended${ended ? ` (${ended.data.outcome})` : ''}`)
  }

  /**
   * Gives a waiting gate a deadline of `duration` from now. Who gets it can rely on it: the gate
   * does not time out before, though its old deadline may be over by now. Throws ConflictError when
   * the gate has ended, `not_found`.
   */
  async extend(id: string, duration: Duration, options: { readonly by?: string } = {}): Promise<Date> {
    refuseUnknown('extend', options, ['by'])
    const at = await this.#known(id)
    const ms = waitMs('duration', duration)
    // A fact that does not meet its schema would stay on the log, and the gate could not be read
    // any more.
    if (options.by !== undefined && (typeof options.by !== 'string' || options.by.length > SOURCE_MAX))
      throw new InvalidError(`by must be text of at most ${SOURCE_MAX} characters`)
    if (options.by !== undefined) checkText('by', options.by)
    if (!at || !(await this.#read.created(at))) throw await this.#missing(id)
    const { names, logOf, clock } = this.#deps
    const { run, asset, gate } = at
    for (let look = 1; ; look++) {
      const [ended, moved] = await Promise.all([this.#read.resolved(at), this.#read.extensions(at)])
      if (ended) throw new ConflictError(`gate ${id} has ended: ${ended.data.outcome}`)
      const deadlineMs = Math.ceil(clock.now() + ms)
      const by = options.by ? { by: options.by } : this.#said
      const data = { why: 'request', deadlineMs, timeouts: moved.timeouts, ...by } as const
      const ids = { run, asset, gate, n: String(moved.count + 1) }
      const entries = extendEntries(names, at.shard, { name: 'gate.extended', ids, data })
      if ((await logOf(at.shard).appendOnce(...entries)) === 'stored') return new Date(deadlineMs)
      // The gate ended meanwhile, or another caller moved its deadline.
      if (look >= EXTEND_TRIES)
        throw new ConflictError(`gate ${id}: other callers changed it ${look} times meanwhile; try again`)
    }
  }

  /** Why there is no such gate. */
  async #missing(id: string): Promise<FlowStoneError> {
    const pruned = await prunedProblem(this.#deps, parseGateId(id).run, `gate ${id}: `)
    return pruned ?? new FlowStoneError('not_found', `there is no gate ${id}`)
  }

  /**
   * The gate's token, derived again: for code that is trusted. Throws `not_found`,
   * `unknown_gate_secret`.
   */
  async token(id: string): Promise<string> {
    const at = await this.#known(id)
    const created = at && (await this.#read.created(at))
    if (!created) throw await this.#missing(id)
    return this.#settings.keys.sign(id, created.data.keyId)
  }

  /**
   * Where the gate is answered over HTTP: `<baseUrl>/hooks/flowstone/signal/<token>`. Takes an id,
   * or a token.
   */
  async callbackUrl(idOrToken: string): Promise<string> {
    const isToken = typeof idOrToken === 'string' && /^v\d+\./.test(idOrToken)
    return callbackUrl(this.#settings.baseUrl, isToken ? idOrToken : await this.token(idOrToken))
  }

  /**
   * Where a gate of this id would be. Undefined for a shard that does not exist: a read there would
   * wait.
   */
  async #known(id: string): Promise<GateAt | undefined> {
    const at = parseGateId(id)
    await this.#deps.found()
    return at.shard < this.#deps.shards ? at : undefined
  }

  /** What `call` is refused is noted for the gate that refused it. */
  async #noting(
    { source }: Pick<SignalOptions, 'source'>,
    call: () => Promise<SignalAccepted>,
  ): Promise<SignalAccepted> {
    try {
      return await call()
    } catch (error) {
      if (error instanceof SignalRejectedError) this.#note(error, refusedBy.get(error), source)
      throw error
    }
  }

  #note({ reason }: SignalRejectedError, gate: string | undefined, source: string | undefined): void {
    emit('flowstone:gate.refuse', { reason, ...(gate === undefined ? {} : { gate }) })
    if (gate !== undefined) this.#refusals?.add({ gate, reason, source, by: this.#deps.by })
  }

  /** Throws SignalRejectedError with which the gate is remembered. */
  async #signal(
    id: string,
    at: GateAt | undefined,
    payload: unknown,
    options: SignalOptions,
    token?: string,
  ): Promise<SignalAccepted> {
    const created = at && (await this.#read.created(at))
    if (!created) throw new SignalRejectedError('not_found', `there is no gate ${id}`)
    try {
      return await this.#answer(id, at, created, payload, options, token)
    } catch (error) {
      if (error instanceof SignalRejectedError) refusedBy.set(error, id)
      throw error
    }
  }

  async #answer(
    id: string,
    at: GateAt,
    created: FactOf<'gate.created'>,
    payload: unknown,
    options: SignalOptions,
    token?: string,
  ): Promise<SignalAccepted> {
    const { names, logOf, clock } = this.#deps
    if (token !== undefined) checkToken(created.data.tokenHash, token)
    checkPayload(created.data.payload, payload ?? null)
    const signal = await signalOf(this.#deps, payload, options, at)
    if (await this.#read.isSealed(at, created)) return await this.#tellLoser(id, at, signal.idempotency)
    const trace = tracing()?.active()
    const end = resolveEntry(names, at.shard, at, { outcome: 'signaled', ...signal, ...(trace ? { trace } : {}) })
    if ((await logOf(at.shard).appendOnce(end)) === 'exists') return await this.#tellLoser(id, at, signal.idempotency)
    const waitedMs = Math.max(0, clock.now() - created.timeMs)
    emit('flowstone:gate.signal', { gate: id, run: at.run, asset: at.asset, waitedMs })
    return { status: 'accepted', gate: id, repeated: false }
  }

  /**
   * A signal with a key of its own answers one gate of the name, however often it is sent: the one
   * that it answered before, else the newest that waits. Undefined where no gate has the name.
   */
  async #deliver(
    hash: string,
    payload: unknown,
    options: SignalOptions,
    delivery: string,
  ): Promise<SignalAccepted | undefined> {
    const ended = new Set<string>()
    let refusal: SignalRejectedError | undefined
    for (;;) {
      const { gate, seq } = await decidedGate(this.#deps, hash, delivery)
      let id = gate === undefined || ended.has(gate) ? undefined : gate
      if (id === undefined) {
        const { newest, answered, waiting } = await this.#ofName(hash, delivery)
        if (newest === undefined) return undefined
        if (answered !== undefined) return { status: 'accepted', gate: answered, repeated: true }
        // Nothing is decided where none waits: the newest one says why.
        if (waiting !== undefined && !(await decideGate(this.#deps, hash, delivery, { gate: waiting, seq }))) continue
        id = waiting ?? newest
      }
      try {
        return await this.#signal(id, await this.#known(id), payload, options)
      } catch (error) {
        if (!(error instanceof SignalRejectedError)) throw error
        refusal ??= error
        if (!ENDED.has(error.reason) || ended.has(id)) throw refusal
        ended.add(id)
      }
    }
  }

  /**
   * Ids of gates of a name: the newest, the one that the delivery answered before, the newest that
   * waits.
   */
  async #ofName(hash: string, delivery: string): Promise<{ newest?: string; answered?: string; waiting?: string }> {
    let found: { newest?: string; waiting?: string } = {}
    for await (const at of this.#read.named(hash)) {
      const id = idOf(at)
      const end = (await this.#read.resolved(at))?.data
      if (end?.outcome === 'signaled' && end.idempotency === delivery) return { ...found, newest: id, answered: id }
      found = { newest: id, ...(end ? {} : { waiting: id }), ...found }
    }
    return found
  }

  /**
   * Answers the newest gate of a name that waits; undefined where no gate has it. One that was
   * answered is not passed over: it may have been by the very signal, sent again, which would count
   * twice.
   */
  async #signalNamed(hash: string, payload: unknown, options: SignalOptions): Promise<SignalAccepted | undefined> {
    let refusal: SignalRejectedError | undefined
    for await (const at of this.#read.named(hash)) {
      try {
        return await this.#signal(idOf(at), at, payload, options)
      } catch (error) {
        if (!(error instanceof SignalRejectedError)) throw error
        // The newest gate is the one meant. If no gate waits, its error is the one to report.
        refusal ??= error
        if (error.reason !== 'expired' && error.reason !== 'cancelled') break
      }
    }
    if (refusal) throw refusal
    return undefined
  }

  async #tellLoser(id: string, at: GateAt, idempotency: string | undefined): Promise<SignalAccepted> {
    const ended = await this.#read.resolved(at)
    switch (ended?.data.outcome) {
      case 'signaled':
        if (idempotency !== undefined && ended.data.idempotency === idempotency)
          return { status: 'accepted', gate: id, repeated: true }
        throw new SignalRejectedError('already_signaled', `gate ${id} was answered before`)
      case 'timed_out':
        throw new SignalRejectedError('expired', `gate ${id} has timed out`)
      case 'cancelled':
        throw new SignalRejectedError('cancelled', `gate ${id} was cancelled`)
      default:
        throw new FlowStoneError('unreadable', `the end of gate ${id} cannot be read back`)
    }
  }

  get #said(): { readonly by?: string } {
    const { by } = this.#deps
    return by === undefined ? {} : { by }
  }
}

/** Which gate refused a signal, by what it threw. */
const refusedBy = new WeakMap<SignalRejectedError, string>()

/** Why a gate takes no signal any more. */
const ENDED: ReadonlySet<string> = new Set(['expired', 'cancelled', 'already_signaled'])

function idOf({ run, asset, gate }: GateIds): string {
  return `${run}.${asset}.${gate}`
}

function placeOf({ id, deadline }: Pick<GateView, 'id' | 'deadline'>): Place {
  const { run, asset, gate } = parseGateId(id)
  if (deadline !== undefined && !(deadline instanceof Date))
    throw new InvalidError(`after: deadline must be a Date, got ${typeof deadline}`)
  return { run, asset, gate, deadlineMs: deadline?.getTime() }
}

/**
 * A secret that leaked and is no longer the first still verifies; it must open only gates that were
 * opened with it.
 */
function checkToken(hash: string, token: string): void {
  if (!timingSafeEqual(Buffer.from(hash), Buffer.from(hashOfToken(token))))
    throw new SignalRejectedError('invalid_signature', 'this is not the token that its gate was opened with')
}
