/**
 * Why what waits is waiting, as parts of a sentence. The API says it in words; those that it is
 * known to say become links and numbers, all others stay as they are. Pure.
 */
import type { Said } from '../answers.ts'
import type { Scatter } from '../api/types.ts'
import { count, counted, duration, rate } from '../format.ts'
import type { UiState } from '../words.ts'

export type Link = (path: readonly string[], query?: Readonly<Record<string, string>>) => string

export type ReasonKind =
  | 'limit'
  | 'slots'
  | 'concurrency'
  | 'worker'
  | 'slot'
  | 'room'
  | 'retry'
  | 'deferred'
  | 'gate'
  | 'paused'
  | 'keys'
  | 'other'

export interface Reason {
  readonly kind: ReasonKind
  /** As a name: `Rate limit shop-api`. */
  readonly name: readonly Said[]
  readonly count: number | undefined
  readonly state: UiState
  /** Of a rate limit. */
  readonly perSecond?: number
}

type Maker = (found: RegExpMatchArray, link: Link) => Reason

const number = (text = '0'): number => Number(text.replaceAll(',', ''))

const KNOWN: readonly (readonly [RegExp, Maker])[] = [
  [
    /^its rate limit: (\d+) in ([\d.]+) ms(?:, (?:bucket (.+?)|(a bucket for each key)))?(?:; the next turn is at \S+)?; (\d+) /,
    ([, limit, periodMs, bucket, perKey, waiting], link) => {
      const perSecond = (number(limit) / Math.max(1, number(periodMs))) * 1000
      const which: Said[] =
        bucket === undefined
          ? [{ text: perKey === undefined ? 'Its rate limit' : 'Rate limit of its key' }]
          : [{ text: 'Rate limit ' }, { text: bucket, mono: true, href: link(['limits', bucket]) }]
      return { kind: 'limit', name: which, count: number(waiting), state: 'wait', perSecond }
    },
  ],
  [
    /^its slots: (\d+) at a time(?:, (?:bucket (.+?)|(a bucket for each key)))?(?:; the next turn is at \S+)?; (\d+) /,
    ([, max, bucket, perKey, waiting], link) => ({
      kind: 'slots',
      name:
        bucket === undefined
          ? [{ text: `${perKey === undefined ? 'Its slots' : 'Slots of its key'}, ${count(number(max))} at a time` }]
          : [{ text: 'Slots ' }, { text: bucket, mono: true, href: link(['limits', bucket]) }],
      count: number(waiting),
      state: 'wait',
    }),
  ],
  [
    /^its limit: maxConcurrent of (\d+) is used up; (\d+) /,
    ([, max, waiting]) => ({
      kind: 'concurrency',
      name: [{ text: 'maxConcurrent', mono: true }, { text: ` of ${count(number(max))}` }],
      count: number(waiting),
      state: 'wait',
    }),
  ],
  [
    /^a slot: (\d+) leased instances wait; slots: (\d+), of ([\d,]+) workers?$/,
    ([, waiting, slots, workers], link) => ({
      kind: 'slot',
      name: [
        { text: `A slot: ${counted(number(workers), 'worker')} with ${count(number(slots))}`, href: link(['workers']) },
      ],
      count: number(waiting),
      state: 'wait',
    }),
  ],
  [
    /^a worker: (.+)$/s,
    ([, why = ''], link) => ({
      kind: 'worker',
      name: [{ text: 'A worker', href: link(['workers']) }, { text: `: ${why}` }],
      count: undefined,
      state: 'late',
    }),
  ],
  [
    /^room: (\d+) /,
    ([, waiting]) => ({
      kind: 'room',
      name: [{ text: 'Their turn, as others end' }],
      count: number(waiting),
      state: 'wait',
    }),
  ],
  [
    /^a retry delay: (\d+) instances, the next in (\d+) ms/,
    ([, waiting, nextMs]) => ({
      kind: 'retry',
      name: [{ text: `Retry delay, the next in ${duration(number(nextMs))}` }],
      count: number(waiting),
      state: 'retry',
    }),
  ],
  [
    /^the end of the first pass: (\d+) /,
    ([, waiting]) => ({
      kind: 'deferred',
      name: [{ text: 'The end of the first pass: then they are retried' }],
      count: number(waiting),
      state: 'retry',
    }),
  ],
  [
    /^a signal, or a run: (\d+) /,
    ([, waiting], link) => ({
      kind: 'gate',
      name: [{ text: 'A signal, or a run', href: link(['inbox']) }],
      count: number(waiting),
      state: 'gate',
    }),
  ],
  [
    /^somebody to resume it: /,
    () => ({ kind: 'paused', name: [{ text: 'Somebody to resume it' }], count: undefined, state: 'wait' }),
  ],
  [
    /^keys: /,
    () => ({ kind: 'keys', name: [{ text: 'Keys that are still being read' }], count: undefined, state: 'wait' }),
  ],
]

export function reasonsOf({ waitingFor }: Pick<Scatter, 'waitingFor'>, link: Link): Reason[] {
  return waitingFor.map((text) => {
    for (const [pattern, make] of KNOWN) {
      const found = text.match(pattern)
      if (found) return make(found, link)
    }
    const name = [{ text: text.charAt(0).toUpperCase() + text.slice(1) }]
    return { kind: 'other', name, count: undefined, state: 'wait' }
  })
}

/** Of several reasons the one that holds up most of it. */
const WEIGHT: readonly ReasonKind[] = [
  'worker',
  'limit',
  'slots',
  'concurrency',
  'slot',
  'other',
  'gate',
  'retry',
  'deferred',
]

export function mainReason(reasons: readonly Reason[]): Reason | undefined {
  return WEIGHT.map((kind) => reasons.find((reason) => reason.kind === kind)).find((reason) => reason !== undefined)
}

/** Limits that somebody has set, as opposed to a lack of workers. */
export function isLimit({ kind }: Reason): boolean {
  return kind === 'limit' || kind === 'slots' || kind === 'concurrency'
}

/** `Waits for rate limit shop-api`. */
export function waitsForReason({ name }: Reason): Said[] {
  const [first, ...rest] = name
  if (!first) return []
  const lower = first.mono ? first.text : first.text.charAt(0).toLowerCase() + first.text.slice(1)
  return [{ text: 'Waits for ' }, { ...first, text: lower }, ...rest]
}

/** `, full at 220 a second` */
export function fullAt({ kind, perSecond }: Reason): string {
  return kind === 'limit' && perSecond !== undefined ? `, full at ${rate(perSecond)} a second` : ''
}
