/** What the page of limits says. Pure. */
import type { Said } from './answers.ts'
import type { Asset, Limit } from './api/types.ts'
import { count, counted, duration } from './format.ts'
import type { BarPart } from './runs.ts'

const PIPS_MAX = 24
const NAMED = 3
const PERIODS: Readonly<Record<number, string>> = { 1000: 'a second', 60000: 'a minute', 3600000: 'an hour' }

export type LimitKind = 'rate' | 'slots'

export interface LimitRow {
  /** Unique: a bucket may have a rate and slots. */
  readonly id: string
  readonly bucket: string
  readonly kind: LimitKind
  /** `220 a second, smooth`. */
  readonly text: string
  /** `4 of 4 held`. */
  readonly use: string
  readonly isFull: boolean
  /** Which of the slots are held, where they are few. */
  readonly pips: readonly boolean[] | undefined
  readonly parts: readonly BarPart[]
  readonly waiting: number
  readonly usedBy: readonly string[]
}

/** By name, so that rows stay where they are. */
export function limitRows(limits: readonly Limit[], assets: readonly Pick<Asset, 'name' | 'limits'>[]): LimitRow[] {
  const rows = limits.flatMap((limit) => {
    const named = assets.filter((asset) => asset.limits.includes(limit.bucket)).map(({ name }) => name)
    const usedBy = [...new Set(named)]
    return [rateRow(limit, usedBy), slotsRow(limit, usedBy)].flatMap((row) => row ?? [])
  })
  return rows.toSorted((a, b) => (a.id < b.id ? -1 : 1))
}

function rateRow({ bucket, rate }: Limit, usedBy: readonly string[]): LimitRow | undefined {
  if (!rate) return undefined
  const most = rate.shape === 'smooth' ? rate.burst : rate.limit
  const period = PERIODS[rate.periodMs] ?? `in ${duration(rate.periodMs)}`
  const isFull = rate.waiting > 0 || rate.remaining < 1
  const share = Math.min(1, rate.count / Math.max(1, most))
  const now = count(Math.round(rate.count))
  const taken = rate.shape === 'smooth' ? `${now} of a burst of ${count(most)}` : `${now} of ${count(most)} taken`
  return {
    id: `${bucket} rate`,
    bucket,
    kind: 'rate',
    text: `${count(rate.limit)} ${period}, ${rate.shape}`,
    use: `${taken}${rate.waiting > 0 ? `, ${count(rate.waiting)} promised` : ''}`,
    isFull,
    pips: undefined,
    parts: [{ state: isFull ? 'retry' : 'run', share: rate.waiting > 0 ? 1 : share }],
    waiting: rate.waiting,
    usedBy,
  }
}

function slotsRow({ bucket, slots }: Limit, usedBy: readonly string[]): LimitRow | undefined {
  if (!slots) return undefined
  const isFull = slots.remaining === 0
  return {
    id: `${bucket} slots`,
    bucket,
    kind: 'slots',
    text: `${count(slots.limit)} at a time, slots`,
    use: `${count(slots.count)} of ${count(slots.limit)} held`,
    isFull,
    pips: slots.limit <= PIPS_MAX ? Array.from({ length: slots.limit }, (_, i) => i < slots.count) : undefined,
    parts: [{ state: isFull ? 'retry' : 'run', share: slots.count / Math.max(1, slots.limit) }],
    waiting: slots.waiting,
    usedBy,
  }
}

/** Open runs whose assets name the bucket: who waits for a rate is among them. */
export function openRunsOf(
  assets: readonly Pick<Asset, 'name' | 'limits' | 'openRuns'>[],
  bucket: string,
): readonly { readonly asset: string; readonly run: string }[] {
  return assets.flatMap(({ name, limits, openRuns }) =>
    limits.includes(bucket) ? openRuns.map((run) => ({ asset: name, run })) : [],
  )
}

/** Which limit holds things up? */
export function limitsAnswer(rows: readonly LimitRow[]): Said[] {
  const full = rows.filter(({ isFull }) => isFull).toSorted((a, b) => b.waiting - a.waiting)
  const waiting = full.reduce((sum, row) => sum + row.waiting, 0)
  if (rows.length === 0) return [{ text: 'No limit is in use.' }]
  if (full.length === 0) return [{ text: `${counted(rows.length, 'limit')} in use. None is full.` }]
  const names = full.slice(0, NAMED).map(({ bucket }): Said => ({ text: bucket, mono: true }))
  const others = full.length - names.length
  const list: Said[] = others > 0 ? [...names, { text: counted(others, 'other') }] : names
  const said = list.flatMap((one, i) => [
    one,
    { text: i === list.length - 1 ? ' ' : i === list.length - 2 ? ' and ' : ', ' },
  ])
  const waits = waiting === 0 ? 'Nobody waits.' : `${count(waiting)} ${waiting === 1 ? 'waits' : 'wait'}.`
  return [...said, { text: `${full.length === 1 ? 'is' : 'are'} full. ${waits}` }]
}

/** `<run>.<asset>`, of an instance with its index behind; else any text that code gave. */
export function holderOf(by: string | undefined): { run?: string; asset?: string; index?: string; text: string } {
  const [, run, asset, index] = /^(\d+-[0-9A-Za-z-]+)\.([^.]+)(?:\.(\d+))?$/.exec(by ?? '') ?? []
  if (run === undefined || asset === undefined) return { text: by ?? 'no name given' }
  return index === undefined ? { run, asset, text: asset } : { run, asset, index, text: `${asset}, instance ${index}` }
}
