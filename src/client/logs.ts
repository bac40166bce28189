/** `flow.logs`: what the code of a run logged. Read from the stream of logs, page by page. */
import { errors } from '@nats-io/nats-core'
import { nearest } from '../../streams/did-you-mean.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { assetName, parseRunId, type RunId } from '../../streams/ids.ts'
import { classOf, decodeLines, LOG_LEVELS, type LogLevel, type LogLine } from '../../streams/logs.ts'
import { shown } from '../../streams/shown.ts'
import { listen } from '../log/listen.ts'
import { directNext, directSince } from '../log/nats.ts'
import { parseLevel } from '../logs/options.ts'
import { checkSignal } from '../options/signal.ts'
import { sleep, unlessAborted } from '../options/timer.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { LastLines } from './last-lines.ts'
import { whyNoRun } from './no-run.ts'
import { Run } from './run.ts'
import type { RunDeps, RunView } from './run-view.ts'

/** Which lines of a run. */
export interface LogFilter {
  /** Only of this asset. */
  readonly asset?: string
  /** Only of the instance of this index; needs `asset`. */
  readonly instance?: number
  /** Only of this level and above. */
  readonly level?: LogLevel
  /** Only lines logged since then. */
  readonly since?: Date
}

/** Options of `flow.logs`. */
export interface LogsOptions extends LogFilter {
  /** Waits for more until the run has ended. Default false: ends behind the last line. */
  readonly follow?: boolean
  /** Ends the iteration. */
  readonly signal?: AbortSignal
}

/** A page of lines, by their times. */
export interface LogsPage {
  readonly lines: readonly LogLine[]
  /** For the page behind this one: of lines that come later, too. */
  readonly next: string
  /** Whether there are more by now. Some of a page may not be wanted, so it may be empty. */
  readonly more: boolean
}

const OPTIONS: OptionNames<LogsOptions> = {
  asset: true,
  instance: true,
  level: true,
  since: true,
  follow: true,
  signal: true,
}
const PAGE_LINES = 1000
const PAGE_MAX = 10_000
/**
 * Messages of a page's first question and of any, questions of a page, and lines: what is looked at
 * for few lines among many.
 */
const FIRST_MESSAGES = 10
const MESSAGES = 200
const QUESTIONS = 8
const LOOKED_MAX = 200_000
/** Who follows looks by himself so often: what wakes him may get lost. */
const LOOK_MS = 2000
/** Lines that come one by one are read together. */
const SETTLE_MS = 20

interface Wanted {
  readonly run: RunId
  readonly filter: string
  readonly isWanted: (line: LogLine) => boolean
  readonly since: Date | undefined
}

function wantedOf(at: string, deps: RunDeps, run: string, options: LogFilter): Wanted {
  const { asset, instance, level, since } = options
  const { id } = parseRunId(run)
  if (asset !== undefined) assetName(asset)
  if (instance !== undefined && !(Number.isSafeInteger(instance) && instance >= 0))
    throw new InvalidError(`${at}: instance must be a whole number from 0, got ${shown(instance)}`)
  if (instance !== undefined && asset === undefined)
    throw new InvalidError(`${at}: instance needs asset, whose instance it is`)
  if (since !== undefined && !(since instanceof Date && Number.isFinite(since.getTime())))
    throw new InvalidError(`${at}: since must be a Date`)
  const least = level === undefined ? 'debug' : parseLevel(`${at}: level`, level)
  const leastAt = LOG_LEVELS.indexOf(least)
  return {
    run: id,
    filter: deps.names.logsOf(id, asset, classOf(least) === 'high' ? 'high' : undefined),
    isWanted: (line) =>
      LOG_LEVELS.indexOf(line.level) >= leastAt &&
      (instance === undefined || line.index === instance) &&
      (since === undefined || line.at >= since),
    since,
  }
}

/** A message, and how many of its lines were on the page before. */
interface Place {
  readonly seq: number
  readonly skip: number
}

function placeOf(cursor: string): Place {
  const [seq = Number.NaN, skip = Number.NaN] = cursor.split('.').map(Number)
  if (Number.isSafeInteger(seq) && Number.isSafeInteger(skip) && seq >= 0 && skip >= 0) return { seq, skip }
  throw new InvalidError('logs: cursor must be `next` of the page before')
}

async function firstPlace({ connection, names }: RunDeps, { since, filter }: Wanted): Promise<Place> {
  if (!since) return { seq: 1, skip: 0 }
  // A line is stored after it was logged.
  const first = await connection.read((nc) => directSince(nc, names.logs, since, filter))
  return { seq: first?.seq ?? 1, skip: 0 }
}

async function readPage(
  deps: RunDeps,
  wanted: Wanted,
  from: Place,
  limit: number,
  signal?: AbortSignal,
): Promise<{ readonly lines: LogLine[]; readonly place: Place; readonly more: boolean }> {
  const { connection, names } = deps
  const lines: LogLine[] = []
  let place = from
  let looked = 0
  for (let asked = 0; asked < QUESTIONS && looked < LOOKED_MAX; asked++) {
    const { seq } = place
    const count = Math.min(MESSAGES, FIRST_MESSAGES * 4 ** asked)
    const messages = await connection.read(async (nc) => {
      try {
        return await directNext(nc, names.logs, seq, wanted.filter, count)
      } catch (error) {
        if (error instanceof errors.NoRespondersError) throw noLogs(names.logs)
        throw error
      }
    }, signal)
    if (messages.length === 0) return { lines: sorted(lines), place, more: false }
    for (const message of messages) {
      const all = decodeLines(names, message.subject, message.payload)
      looked += all.length
      let taken = message.seq === place.seq ? place.skip : 0
      for (; taken < all.length && lines.length < limit; taken++) {
        const line = all[taken]
        if (line && wanted.isWanted(line)) lines.push(line)
      }
      if (taken < all.length) return { lines: sorted(lines), place: { seq: message.seq, skip: taken }, more: true }
      place = { seq: message.seq + 1, skip: 0 }
      if (looked >= LOOKED_MAX) break
    }
  }
  return { lines: sorted(lines), place, more: true }
}

/** Workers send what they have now and then, so lines of several come in groups. */
function sorted(lines: LogLine[]): LogLine[] {
  return lines.toSorted((a, b) => a.at.getTime() - b.at.getTime())
}

function noLogs(stream: string): FlowStoneError {
  return new FlowStoneError(
    'no_stream',
    `there is no stream ${stream}; an engine of this version makes it, and so does flowstone setup`,
  )
}

/** Throws `not_found` for a run that there is not, and `pruned` for one that is gone. */
async function mustExist(run: Run, asset: string | undefined): Promise<void> {
  const view = await run.view()
  if (!view) throw await whyNoRun(run)
  mustMake(view, asset)
}

/** Throws `not_found` for an asset that is not in the plan of the run. */
export function mustMake({ id, assets }: RunView, asset: string | undefined): void {
  const names = Object.keys(assets)
  // It is not planned yet.
  if (asset === undefined || names.length === 0 || names.includes(asset)) return
  throw new FlowStoneError('not_found', `run ${id} has no asset ${asset}${nearest(asset, names)}`)
}

/** A page for those who look at a run again and again; the run is known to be there. */
export async function logsPage(
  deps: RunDeps,
  run: string,
  options: LogFilter & { readonly cursor?: string | undefined; readonly limit?: number } = {},
): Promise<LogsPage> {
  const { cursor, limit = PAGE_LINES, ...filter } = options
  if (!Number.isInteger(limit) || limit < 1 || limit > PAGE_MAX)
    throw new InvalidError(`logs: limit must be a whole number from 1 to ${PAGE_MAX}`)
  await deps.found()
  const wanted = wantedOf('logs', deps, run, filter)
  const from = cursor === undefined ? await firstPlace(deps, wanted) : placeOf(cursor)
  const { lines, place, more } = await readPage(deps, wanted, from, limit)
  return { lines, next: `${place.seq}.${place.skip}`, more }
}

export async function* logs(deps: RunDeps, run: string, options: LogsOptions = {}): AsyncGenerator<LogLine> {
  refuseUnknown('logs', options, OPTIONS)
  const { follow = false, signal, ...filter } = options
  checkSignal('logs: signal', signal)
  await deps.found()
  const wanted = wantedOf('logs', deps, run, filter)
  const handle = new Run(deps, wanted.run)
  let wakes: Wakes | undefined
  try {
    // The server may be away for long: whoever leaves meanwhile is not held up.
    await unlessAborted(mustExist(handle, filter.asset), signal)
    if (follow) wakes = new Wakes(deps, wanted, signal)
    let place = await unlessAborted(firstPlace(deps, wanted), signal)
    let last: LastLines | undefined
    while (!signal?.aborted) {
      // No look that began earlier is the last one.
      const isLast = last?.leftMs(performance.now()) === 0
      const page = await readPage(deps, wanted, place, PAGE_LINES, signal)
      yield* page.lines
      const isNew = page.place.seq !== place.seq
      place = page.place
      if (page.more) continue
      if (!wakes) return
      const nowMs = performance.now()
      if (isNew) last?.came(nowMs)
      if (isLast && last?.leftMs(nowMs) === 0) return
      if (!last) {
        const ended = (await unlessAborted(handle.view(), signal))?.finishedAt
        if (ended) last = new LastLines(nowMs, deps.clock.now() - ended.getTime())
      }
      await wakes.next(last?.leftMs(nowMs))
    }
  } catch (error) {
    if (!signal?.aborted) throw error
  } finally {
    wakes?.end()
  }
}

/** Something may have been logged, or the run may have ended. */
class Wakes {
  readonly #subscriptions: readonly { unsubscribe(): void }[]
  readonly #deps: RunDeps
  readonly #signal: AbortSignal | undefined
  readonly #onAbort = (): void => this.#wake()
  #noted = false
  #resolve: (() => void) | undefined

  constructor(deps: RunDeps, { run, filter }: Wanted, signal: AbortSignal | undefined) {
    const { connection, names } = deps
    const wake = (): void => this.#wake()
    this.#deps = deps
    this.#signal = signal
    this.#subscriptions = [filter, names.notification('run', run)].map((subject) =>
      listen(connection.nc, subject, wake),
    )
    signal?.addEventListener('abort', this.#onAbort)
  }

  #wake(): void {
    this.#noted = true
    this.#resolve?.()
  }

  async next(ms = LOOK_MS): Promise<void> {
    const woken = Promise.withResolvers<void>()
    this.#resolve = woken.resolve
    const timer = setTimeout(woken.resolve, ms)
    if (this.#noted) woken.resolve()
    await woken.promise
    clearTimeout(timer)
    if (this.#noted && !this.#signal?.aborted) await sleep(SETTLE_MS)
    this.#noted = false
    if (this.#deps.connection.isClosed)
      throw new FlowStoneError('closed', 'the connection was closed while the logs of a run were followed')
  }

  end(): void {
    this.#signal?.removeEventListener('abort', this.#onAbort)
    if (!this.#deps.connection.isClosed) for (const one of this.#subscriptions) one.unsubscribe()
  }
}
