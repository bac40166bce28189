/**
 * What `flowstone dev` says of attempts that fail: which, why, and whether they are tried again. Of
 * an asset with many failures it says the first ones, and then how many followed.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { CancelledError } from '../../streams/errors.ts'
import { cut, printable } from '../../streams/text.ts'
import { infoOf, read, viewOfError } from '../../streams/thrown.ts'
import { after, type Timer } from '../options/timer.ts'
import type { TelemetryEvents } from '../telemetry.ts'
import { painted } from './colour.ts'
import type { Output } from './output.ts'

const ATTEMPT = 'flowstone:materialization.exception'
const INSTANCE = 'flowstone:scatter.instance_fail'
/** Of an asset of a run: so many are shown, and then how many followed, at most so often. */
const SHOWN = 3
const MORE_MS = 2000
const KEY_MAX = 80
/** Lines of a stack that show where user code was. */
const STACK_LINES = 4
/** Runs are forgotten in the order in which they failed. */
const ASSETS_MAX = 1000

interface Failed {
  readonly run: string
  readonly asset: string
  readonly attempt: number
  readonly phase?: string
  readonly index?: number
  readonly key?: unknown
  readonly outcome: string
  readonly isLast: boolean
  readonly error: unknown
}

interface OfAsset {
  count: number
  /** Those that were not shown. */
  hidden: number
  last: Failed
  timer: Timer | undefined
}

/** Listens until it is disposed of. */
export function showFailures(output: Output): Disposable {
  const failures = new Failures(output)
  const onAttempt = (message: unknown): void => failures.add(message as TelemetryEvents[typeof ATTEMPT])
  const onInstance = (message: unknown): void => failures.add(message as TelemetryEvents[typeof INSTANCE])
  subscribe(ATTEMPT, onAttempt)
  subscribe(INSTANCE, onInstance)
  return {
    [Symbol.dispose]: () => {
      unsubscribe(ATTEMPT, onAttempt)
      unsubscribe(INSTANCE, onInstance)
      failures.end()
    },
  }
}

export class Failures {
  readonly #output: Output
  readonly #of = new Map<string, OfAsset>()

  constructor(output: Output) {
    this.#output = output
  }

  add(failed: Failed): void {
    // Handed back because the worker stops, or not wanted any more.
    if (failed.outcome === 'returned' || failed.error instanceof CancelledError) return
    const id = `${failed.run}.${failed.asset}`
    const known = this.#of.get(id) ?? { count: 0, hidden: 0, last: failed, timer: undefined }
    known.count += 1
    known.last = failed
    this.#of.set(id, known)
    if (known.count <= SHOWN) {
      this.#say(failed)
      return
    }
    known.hidden += 1
    known.timer ??= after(MORE_MS, () => this.#sayMore(known), { unref: true })
    const [oldest] = this.#of
    if (this.#of.size > ASSETS_MAX && oldest) {
      oldest[1].timer?.cancel()
      this.#of.delete(oldest[0])
    }
  }

  /** Says what was held back. */
  end(): void {
    for (const known of this.#of.values()) {
      known.timer?.cancel()
      if (known.hidden > 0) this.#sayMore(known)
    }
  }

  #say(failed: Failed): void {
    const { run, asset, attempt, phase, index, outcome, isLast, error } = failed
    const info = infoOf(error)
    const event = { run, asset, attempt, phase, index, key: failed.key, outcome, again: !isLast, error: info }
    this.#output.event(
      'failed',
      event,
      `${painted('failed')}   ${placeOf(failed)}: ${linesOf(failed).join('\n         ')}`,
    )
  }

  #sayMore(known: OfAsset): void {
    const { hidden, last } = known
    known.hidden = 0
    known.timer = undefined
    const { run, asset } = last
    const many = hidden === 1 ? 'one more attempt' : `${hidden} more attempts`
    const { message } = infoOf(last.error)
    const event = { run, asset, more: hidden, last: viewOfError(infoOf(last.error)) }
    this.#output.event(
      'failed',
      event,
      `${painted('failed')}   ${many} of ${asset} (run ${run}); the last: ${cut(message, 300, '…')}`,
    )
  }
}

function placeOf({ run, asset, phase, attempt, index, key }: Failed): string {
  const shownKey = key === undefined ? '' : ` (${cut(JSON.stringify(key) ?? String(key), KEY_MAX, '…')})`
  const instance = index === undefined ? '' : `, instance ${index}${shownKey}`
  const of = phase === undefined || phase === 'execute' ? asset : `${phase} of ${asset}`
  return printable(`${of}${instance}, attempt ${attempt} of run ${run}`)
}

function nameOf(error: object): string {
  const name = read(error, 'name')
  return typeof name === 'string' && name !== '' ? name : 'Error'
}

/** The error, where it was thrown, and its causes. */
function linesOf({ error, isLast }: Failed): string[] {
  const { message, stack = '', cause, errors } = infoOf(error)
  const name = typeof error === 'object' && error !== null ? nameOf(error) : 'thrown'
  const places = stack.split('\n').filter((line) => /^\s+at /.test(line) && !/node:internal/.test(line))
  const causes: string[] = []
  for (let at = cause, depth = 0; at && depth < 5; at = at.cause, depth++)
    causes.push(`caused by ${at.code === 'error' ? '' : `${at.code}: `}${at.message}`)
  return [
    `${name}: ${message}`,
    ...places.slice(0, STACK_LINES).map((line) => `  ${line.trim()}`),
    ...causes,
    ...(errors ?? []).map((one) => `one of several: ${one.message}`),
    isLast ? 'it is not tried again' : 'it is tried again',
  ]
}
