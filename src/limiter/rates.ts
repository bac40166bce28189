/** The rate limits of `flow.limiter`. */

import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Rate } from '../../projections/limits/rate-cell.ts'
import type { Answer, Ask } from '../../projections/limits/rate-round.ts'
import { FlowStoneError, RateLimitedError } from '../../streams/errors.ts'
import { atMost, sleep } from '../options/timer.ts'
import { emit } from '../telemetry.ts'
import { type Cells, closed } from './cells.ts'
import { type Caller, lateMs, RateBucket } from './rate-bucket.ts'
import type { Question, Relay } from './relay.ts'
import { settledWithin, untilServerTime } from './wait.ts'

/** Number of buckets whose cell this process remembers. */
const REMEMBERED = 10_000
/** A wait this short is not reported, but waited for: a caller's timer is no finer. */
const SHORT_MS = 2
const LAPSES_MAX = 2
const CLOSE_MS = 1000

export interface Wish {
  readonly bucket: string
  readonly rate: Rate
  readonly n: number
  readonly maxWaitMs: number
  readonly signal: AbortSignal | undefined
  readonly onUnreachable: 'closed' | 'open'
  readonly onWait: ((waitMs: number) => void) | undefined
}

/** Whether there was room in a rate limit. If not, nothing was taken. */
export type CheckResult =
  | { readonly allowed: true }
  /** There is room after `waitMs` milliseconds, if nobody else comes first. */
  | { readonly allowed: false; readonly waitMs: number }

type Told = Extract<Answer, { is: 'granted' | 'reserved' | 'refused' | 'far' }> | { readonly is: 'unreachable' }

export class Rates {
  readonly #cells: Cells
  readonly #writer: () => string
  readonly #relay: Relay
  readonly #buckets = new Map<string, RateBucket>()
  /** Of callers that wait for their turns: to be aborted when this process closes. */
  readonly #waits = new Set<AbortController>()
  readonly #givingBack = new Set<Promise<unknown>>()
  /** Those that have begun and not ended. */
  readonly #takes = new Set<Promise<void>>()
  #isClosed = false

  constructor(cells: Cells, process: string, writer: () => string) {
    this.#cells = cells
    this.#writer = writer
    this.#relay = cells.relay(process, (question) => this.#serve(question))
  }

  /** Whoever waits hears that it is closed, and gives its turn back. */
  async close(): Promise<void> {
    this.#isClosed = true
    for (const ended of this.#waits) ended.abort(closed())
    await atMost(CLOSE_MS, this.#ended())
    await this.#relay.close().catch(() => undefined)
  }

  /** Whoever has just asked gets its answer first, and then gives its turn back, too. */
  async #ended(): Promise<void> {
    await Promise.allSettled(this.#takes)
    await nextTurn()
    await Promise.all(this.#givingBack)
  }

  /** Waits as `wait` does, and no longer than this process is open. */
  async #whileOpen(signal: AbortSignal | undefined, wait: (signal: AbortSignal) => Promise<void>): Promise<void> {
    if (this.#isClosed) throw closed()
    const ended = new AbortController()
    const onAbort = (): void => ended.abort(signal?.reason)
    if (signal?.aborted) onAbort()
    signal?.addEventListener('abort', onAbort, { once: true })
    this.#waits.add(ended)
    try {
      await wait(ended.signal)
    } finally {
      this.#waits.delete(ended)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /** Answers another process, together with the callers of this one. */
  async #serve({ bucket, rate, untilMs, asks }: Question): Promise<readonly Answer[]> {
    const { clock } = this.#cells
    await clock.ready()
    // The question is old, because this process was stalled. Nobody waits for an answer.
    if (clock.now() > untilMs) throw new FlowStoneError('late', 'nobody waits for this answer')
    const asked = this.#bucket(bucket)
    const list = await Promise.all(
      asks.map(
        (ask) =>
          new Promise<Answer>((resolve, reject) => {
            const settle = (answer: Answer | Error): void => {
              if (answer instanceof Error) reject(answer)
              else resolve(answer)
            }
            asked.ask({ rate, ask, queuedMs: performance.now(), remote: true, gone: false, lapsed: false, settle })
          }),
      ),
    )
    if (clock.now() <= untilMs) return list
    list.forEach((answer, i) => {
      const n = asks[i]?.n
      if (answer.is === 'reserved' && n !== undefined) this.#giveBack({ bucket, rate, n }, answer.atMs)
    })
    throw new FlowStoneError('late', 'nobody waits for this answer')
  }

  async check(wish: Wish, kind: 'check' | 'peek'): Promise<CheckResult> {
    const startedMs = performance.now()
    const { bucket, n } = wish
    const ask: Ask = { kind, n }
    let reply = await this.#ask(wish, ask, wish.maxWaitMs)
    if (reply.is === 'refused' && reply.waitMs <= SHORT_MS) {
      await sleep(reply.waitMs, wish.signal)
      reply = await this.#ask(wish, ask, wish.maxWaitMs)
    }
    if (reply.is === 'unreachable' && wish.onUnreachable === 'closed') throw unreachable(bucket, this.#cells)
    const waitMs = reply.is === 'refused' ? Math.ceil(reply.waitMs) : undefined
    if (kind === 'check') {
      const durationMs = performance.now() - startedMs
      const allowed = waitMs === undefined
      emit('flowstone:rate_limit.check', {
        bucket,
        tokens: n,
        allowed,
        ...(waitMs === undefined ? {} : { waitMs }),
        durationMs,
      })
    }
    return waitMs === undefined ? { allowed: true } : { allowed: false, waitMs }
  }

  /**
   * Resolves when it is the caller's turn. Throws RateLimitedError if the turn cannot come within
   * `maxWaitMs`. It throws at once if it knows that at once.
   */
  async take(wish: Wish): Promise<void> {
    const startedMs = performance.now()
    const { bucket, n } = wish
    let granted = false
    if (this.#isClosed) throw closed()
    const taking = this.#take(wish, startedMs)
    this.#takes.add(taking)
    try {
      await taking
      granted = true
    } finally {
      this.#takes.delete(taking)
      emit('flowstone:rate_limit.wait', { bucket, tokens: n, granted, durationMs: performance.now() - startedMs })
    }
  }

  async #take(wish: Wish, startedMs: number): Promise<void> {
    const { bucket, rate, n, signal } = wish
    const { clock } = this.#cells
    for (let lapses = 0; ; ) {
      const leftMs = Math.max(0, startedMs + wish.maxWaitMs - performance.now())
      const reply = await this.#ask(wish, { kind: 'wait', n, maxWaitMs: leftMs }, leftMs)
      switch (reply.is) {
        case 'granted':
          return
        case 'reserved':
          try {
            wish.onWait?.(reply.atMs - clock.atLeast())
            await this.#whileOpen(signal, (either) => untilServerTime(clock, reply.atMs, either))
          } catch (reason) {
            this.#giveBack(wish, reply.atMs)
            throw reason
          }
          // This process was stalled, and using the grant now would make a burst. So it asks again,
          // but not for ever: a busy process must get something in the end.
          if (clock.atLeast() - reply.atMs <= lateMs(rate) || lapses >= LAPSES_MAX) return
          lapses += 1
          break
        case 'far':
          wish.onWait?.(reply.waitMs)
          await this.#whileOpen(signal, (either) => sleep(reply.waitMs, either))
          break
        case 'refused': {
          const retryAfterMs = Math.ceil(reply.waitMs)
          throw new RateLimitedError(
            `limit ${bucket} has no room for ${n} within ${Math.round(wish.maxWaitMs)} ms; it will in ${retryAfterMs} ms. Wait longer (maxWait), or ask for less`,
            { retryAfterMs },
          )
        }
        case 'unreachable':
          if (wish.onUnreachable === 'open') return
          throw unreachable(bucket, this.#cells)
        default:
          reply satisfies never
      }
    }
  }

  async #ask({ bucket, rate, n, signal }: Wish, ask: Ask, patienceMs: number): Promise<Told> {
    let caller: Caller | undefined
    const outcome = await settledWithin<Answer>(
      Math.max(patienceMs, MIN_PATIENCE_MS),
      signal,
      (settle) => {
        caller = {
          rate,
          ask,
          queuedMs: performance.now(),
          remote: false,
          gone: false,
          lapsed: false,
          settle: (answer) => {
            if (!caller?.gone) settle(answer)
            // The caller does not wait any more.
            else if (!(answer instanceof Error) && answer.is === 'reserved')
              this.#giveBack({ bucket, rate, n }, answer.atMs)
          },
        }
        this.#bucket(bucket).ask(caller)
      },
      () => {
        if (caller) caller.gone = true
      },
    )
    if (outcome === 'late') return { is: 'unreachable' }
    const { value } = outcome
    if (value.is === 'next round' || value.is === 'done') throw new FlowStoneError('internal', `answered ${value.is}`)
    return value
  }

  #giveBack({ bucket, rate, n }: Pick<Wish, 'bucket' | 'rate' | 'n'>, atMs: number): void {
    const ask: Ask = { kind: 'give back', n, atMs }
    const given = Promise.withResolvers<void>()
    this.#givingBack.add(given.promise)
    const settle = (): void => {
      this.#givingBack.delete(given.promise)
      given.resolve()
    }
    this.#bucket(bucket).ask({
      rate,
      ask,
      queuedMs: performance.now(),
      remote: false,
      gone: false,
      lapsed: false,
      settle,
    })
  }

  #bucket(name: string): RateBucket {
    this.#relay.open()
    const found = this.#buckets.get(name) ?? new RateBucket(name, this.#cells, this.#writer, this.#relay)
    // The newest one is last.
    this.#buckets.delete(name)
    this.#buckets.set(name, found)
    if (this.#buckets.size > REMEMBERED) {
      for (const [other, bucket] of this.#buckets) {
        if (!bucket.idle || bucket === found) continue
        this.#buckets.delete(other)
        break
      }
    }
    return found
  }
}

/** A caller that does not want to wait still gives the server time to answer. */
const MIN_PATIENCE_MS = 250

function unreachable(bucket: string, cells: Cells): FlowStoneError {
  return new FlowStoneError(
    'unreachable',
    `limit ${bucket} could not be asked: ${cells.whySilent}. Nothing was run. Raise maxWait, or say onUnreachable: 'open' to go on without the limit`,
  )
}
