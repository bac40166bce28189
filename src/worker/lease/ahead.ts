/**
 * How many instances ask for their turn at a quick rate before there is a local slot for them. All
 * that ask at the same time share one answer of the limiter. If only those that have a slot ask,
 * the rate is held up by the time that an answer takes.
 *
 * As many may ask as the local slots can run in a moment. More would get turns that they cannot
 * use.
 */
import type { AnyAsset } from '../../define/asset-type.ts'
import type { Limits } from '../../define/limits.ts'
import type { Slots } from '../pull/slots.ts'

/** From so many turns a millisecond on, a rate is quick. */
const QUICK_RATE = 0.5
/** A turn that came is used within this time. */
const SOON_MS = 20
const MOST = 256
/** A duration below this is one of the clock, not of the code. */
const LEAST_MS = 0.05
const NEWEST = 0.2

export class Ahead {
  #codeMs: number | undefined

  /** How long the code of an instance took. */
  took(ms: number): void {
    this.#codeMs = this.#codeMs === undefined ? ms : this.#codeMs * (1 - NEWEST) + ms * NEWEST
  }

  /** Instances that may ask at a time, beyond those that have a slot. */
  most(slots: number): number {
    if (this.#codeMs === undefined) return 0
    return Math.min(MOST, Math.floor((slots * SOON_MS) / Math.max(LEAST_MS, this.#codeMs)))
  }
}

const known = new WeakMap<AnyAsset, Ahead>()

/** What this process knows of the asset. */
export function aheadOf(asset: AnyAsset): Ahead {
  const ahead = known.get(asset) ?? new Ahead()
  known.set(asset, ahead)
  return ahead
}

/** Milliseconds from one turn to the next, of a quick rate that all instances share. */
export function quickTurnMs(limits: Limits | undefined): number | undefined {
  const rate = limits?.rate
  // Where each key has a bucket of its own, the next one may begin at once.
  if (!rate || rate.perKey || limits?.slots || rate.rate.limit < rate.rate.periodMs * QUICK_RATE) return undefined
  return rate.rate.periodMs / rate.rate.limit
}

/** How many of these may ask, those that have a slot included. */
export function askersOf(ahead: Ahead, slots: Slots): number {
  return slots.size + ahead.most(slots.size)
}
