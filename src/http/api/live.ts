/**
 * Live updates as server-sent events. Each client has a loop of its own, which looks at what has
 * changed and sends it: at most four times a second, and only while the client reads. What changes
 * meanwhile is sent together. So a client costs a bounded memory, however slow it is, and one that
 * does not read at all is dropped.
 */
import { changedStates, countStates, encodeStates } from '../../../projections/scatter/map.ts'
import { messageOf } from '../../../streams/errors.ts'
import { jsonOf } from '../../../streams/plain-json.ts'
import type { StateChanges } from '../../client/inspect/changes.ts'
import type { MapLook, MapWatch } from '../../client/inspect/map-watch.ts'
import { GUARD_HEADERS, HttpProblem, problemBody, SEALED_CSP } from '../shared/problem.ts'
import { gatesFor, noneYet, runFor, seesRun } from './covered.ts'
import { factShown } from './facts.ts'
import { apiProblem } from './problems.ts'
import type { Call, LiveTopics } from './route.ts'

/** What a client costs, at most. */
export interface LiveLimits {
  readonly everyMs: number
  readonly heartbeatMs: number
  /** A client that reads nothing for so long is dropped. */
  readonly stalledMs: number
  readonly clients: number
  readonly clientsOfKey: number
}

const LIMITS: LiveLimits = {
  everyMs: 250,
  heartbeatMs: 15_000,
  stalledMs: 30_000,
  clients: 100,
  clientsOfKey: 20,
}
const RUNS_SHOWN = 100
const GATES_SHOWN = 50
const encoder = new TextEncoder()

type LiveCall = Pick<Call, 'flow' | 'caller' | 'signal' | 'logger'>

interface OpenOptions {
  /** Ends the connection at once, where that is possible. */
  readonly cut?: (() => void) | undefined
  /** Of the last event that the client got from a connection before. */
  readonly lastEventId?: string | undefined
}

/** Who listens now, of all clients of a handler. */
export class LiveClients {
  readonly #ofKey = new Map<string, number>()
  readonly #closing: AbortSignal | undefined
  readonly #limits: LiveLimits
  #all = 0

  /** `closing`: then all of them end. */
  constructor(closing: AbortSignal | undefined, limits: Partial<LiveLimits> = {}) {
    this.#closing = closing
    this.#limits = { ...LIMITS, ...limits }
  }

  /** Throws the problem `unavailable` when there are too many. */
  open(call: LiveCall, topics: LiveTopics, { cut, lastEventId }: OpenOptions = {}): Response {
    const { id } = call.caller
    const { clients, clientsOfKey } = this.#limits
    const taken = this.#ofKey.get(id) ?? 0
    if (this.#all >= clients || taken >= clientsOfKey)
      throw new HttpProblem('unavailable', 'Too many clients listen at this moment.', { 'Retry-After': '10' })
    this.#count(id, 1)
    const gone = new AbortController()
    const ends = [call.signal, gone.signal, ...(this.#closing ? [this.#closing] : [])]
    const client = new LiveClient(call, topics, {
      limits: this.#limits,
      signal: AbortSignal.any(ends),
      cut,
      lastEventId,
    })
    const body = new ReadableStream<Uint8Array>({
      start: (stream) => {
        void client.run(stream).finally(() => {
          gone.abort()
          this.#count(id, -1)
        })
      },
      pull: () => client.wake(),
      cancel: () => gone.abort(),
    })
    const headers = { ...GUARD_HEADERS, 'Content-Security-Policy': SEALED_CSP, 'X-Accel-Buffering': 'no' }
    return new Response(body, { headers: { ...headers, 'Content-Type': 'text/event-stream' } })
  }

  #count(id: string, by: 1 | -1): void {
    const taken = (this.#ofKey.get(id) ?? 0) + by
    this.#all += by
    if (taken === 0) this.#ofKey.delete(id)
    else this.#ofKey.set(id, taken)
  }
}

/** An id is a number, and with facts how far they were shown: `7/4711.30`. */
function endsIn(id: string | undefined, shards: number): number[] | undefined {
  const ends = /^\d+\/([\d.]+)$/
    .exec(id ?? '')?.[1]
    ?.split('.')
    .map(Number)
  return ends?.length === shards && ends.every(Number.isSafeInteger) ? ends : undefined
}

interface ClientOptions {
  readonly limits: LiveLimits
  readonly signal: AbortSignal
  readonly cut: (() => void) | undefined
  readonly lastEventId: string | undefined
}

class LiveClient {
  readonly #call: LiveCall
  readonly #options: ClientOptions
  readonly #topics: LiveTopics
  readonly #signal: AbortSignal
  readonly #maps = new Map<string, { readonly watch: MapWatch; last: MapLook | undefined }>()
  #stream: ReadableStreamDefaultController<Uint8Array> | undefined
  #wake: (() => void) | undefined
  /** How far facts were shown, of each log. */
  #ends: readonly number[] | undefined
  #sent = 0
  #heartbeat: NodeJS.Timeout | undefined
  #isStalled = false

  constructor(call: LiveCall, topics: LiveTopics, options: ClientOptions) {
    this.#call = call
    this.#topics = topics
    this.#options = options
    this.#signal = options.signal
    this.#ends = topics.facts ? endsIn(options.lastEventId, call.flow.shards) : undefined
    for (const id of topics.scatter) this.#maps.set(id, { watch: call.flow.inspect.mapWatch(id), last: undefined })
  }

  wake(): void {
    this.#wake?.()
  }

  /** Until the client goes away, does not read, or the server closes. */
  async run(stream: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    this.#stream = stream
    const { everyMs, heartbeatMs } = this.#options.limits
    this.#heartbeat = setInterval(() => {
      // Who reads nothing needs no sign of life.
      if ((stream.desiredSize ?? 0) > 0) stream.enqueue(encoder.encode(': \n\n'))
    }, heartbeatMs)
    try {
      const { logs } = this.#topics
      for await (const changes of this.#call.flow.inspect.changes(everyMs, this.#signal, { logs }))
        await this.#show(changes)
    } catch (error) {
      if (!this.#signal.aborted) this.#ended(error)
    } finally {
      clearInterval(this.#heartbeat)
      try {
        if (this.#isStalled) this.#drop(stream)
        else stream.close()
      } catch {
        // The client has closed it.
      }
    }
  }

  /** Says why, to the log and to the client, who may come again. */
  #ended(error: unknown): void {
    const { logger } = this.#call
    if (this.#isStalled) {
      logger.info(`http: live updates ended: ${messageOf(error)}`)
      return
    }
    const problem = error instanceof HttpProblem ? error : apiProblem(error, logger)
    logger.warn(`http: live updates ended: ${problem.reason}`)
    this.#put('problem', problemBody(problem))
  }

  /** What was sent and not read would be kept for as long as the client stays. */
  #drop(stream: ReadableStreamDefaultController<Uint8Array>): void {
    const { cut } = this.#options
    if (cut) cut()
    else stream.error(new Error('the client does not read'))
  }

  async #show({ runs, scatters, gates, logs, facts, missed }: StateChanges): Promise<void> {
    const { flow } = this.#call
    if (this.#topics.runs && (missed || runs.size > 0)) await this.#showRuns(missed ? undefined : runs)
    for (const id of this.#topics.run) {
      const isTouched = missed || runs.has(id) || [...scatters.keys()].some((one) => one.startsWith(`${id}.`))
      if (!isTouched) continue
      const run = await runFor(this.#call, id)
      // Before it is planned there are none.
      await this.#send('run', { run, scatters: await flow.scatter.list(id).catch(noneYet) })
    }
    for (const [id, map] of this.#maps) {
      const changed = scatters.get(id)
      if (missed || changed) await this.#showMap(id, map, missed ? undefined : changed)
    }
    for (const run of this.#topics.logs) if (missed || logs.has(run)) await this.#send('logs', { run })
    if (this.#topics.gates && (missed || gates)) {
      const waiting = await gatesFor(this.#call, await flow.gates.waiting({ limit: 1000 }))
      await this.#send('gates', { waiting: waiting.length, gates: waiting.slice(0, GATES_SHOWN) })
    }
    if (this.#topics.facts && (missed || facts)) await this.#showFacts()
  }

  /** The first event has none, but for those since the last event of a connection before. */
  async #showFacts(): Promise<void> {
    await this.#untilRead()
    const isFirst = this.#ends === undefined
    const { facts, ends, skipped } = await this.#call.flow.inspect.factsBehind(this.#ends)
    this.#ends = ends
    if (isFirst || facts.length > 0) this.#put('facts', { facts: facts.map(factShown), skipped })
  }

  /** Undefined: the newest ones, since any may have changed. */
  async #showRuns(changed: ReadonlySet<string> | undefined): Promise<void> {
    const { flow, caller } = this.#call
    const some = changed && [...changed].slice(-RUNS_SHOWN)
    const found = some
      ? (await Promise.all(some.map((id) => flow.run(id).view()))).flatMap((run) => run ?? [])
      : await flow.runs({ limit: RUNS_SHOWN })
    const runs = found.filter((run) => seesRun(caller, run))
    if (runs.length > 0) await this.#send('runs', { runs, more: Math.max(0, (changed?.size ?? 0) - RUNS_SHOWN) })
  }

  async #showMap(
    id: string,
    map: { readonly watch: MapWatch; last: MapLook | undefined },
    changed: ReadonlySet<number> | undefined,
  ): Promise<void> {
    const before = map.last
    const look = await map.watch.look(changed)
    map.last = look
    const { states, ...about } = look
    const change = before ? changedStates(before.states, states) : { from: 0, states }
    if (!change && before?.status === look.status) return
    await this.#send(before ? 'ranges' : 'map', {
      id,
      ...about,
      from: change?.from ?? 0,
      length: change?.states.length ?? 0,
      counts: countStates(states),
      runs: Buffer.from(encodeStates(change?.states ?? new Uint8Array())).toString('base64'),
    })
  }

  async #send(event: string, data: unknown): Promise<void> {
    await this.#untilRead()
    this.#put(event, data)
  }

  #put(event: string, data: unknown): void {
    this.#sent += 1
    const id = this.#ends ? `${this.#sent}/${this.#ends.join('.')}` : this.#sent
    this.#stream?.enqueue(encoder.encode(`id: ${id}\nevent: ${event}\ndata: ${jsonOf(data)}\n\n`))
  }

  /** Throws when the client goes away, or reads nothing for long. */
  async #untilRead(): Promise<void> {
    this.#signal.throwIfAborted()
    if ((this.#stream?.desiredSize ?? 0) > 0) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const onAbort = (): void => reject(new Error('the client went away'))
    const timer = setTimeout(() => {
      this.#isStalled = true
      reject(new Error('the client does not read'))
    }, this.#options.limits.stalledMs)
    this.#signal.addEventListener('abort', onAbort, { once: true })
    this.#wake = resolve
    try {
      await promise
    } finally {
      clearTimeout(timer)
      this.#signal.removeEventListener('abort', onAbort)
    }
  }
}
