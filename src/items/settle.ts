/**
 * What becomes of the items of a batch, one by one: a batch that ran is a success, and says which
 * of its items failed.
 */
import { CancelledError, FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'
import { cut } from '../../streams/text.ts'
import { describe, infoOf } from '../../streams/thrown.ts'
import { refuseUnknown } from '../options/unknown.ts'
import type { Batch } from './batch.ts'

/** Why an item failed. `code` is that of the error, as in FlowStoneError. */
export interface ItemError {
  readonly code: string
  readonly message: string
}

/** The value of an instance that ran a batch. */
export interface SettledItems<T, V> {
  readonly ok: { readonly item: T; readonly value: V }[]
  readonly failed: { readonly item: T; readonly error: ItemError }[]
}

/** Options of `settleItems`. */
export interface SettleOptions {
  /** How many items at a time. Default 1: one after the other. */
  readonly concurrency?: number
  /**
   * How many items may fail before the whole instance has, which is then retried as the asset says:
   * a share of the batch (0 to 1), or `{ count }`. Default 1: items never fail the instance.
   */
  readonly failureThreshold?: number | { readonly count: number }
  /**
   * Give `ctx.signal`: once it is aborted no more items are begun, and the instance ends with its
   * reason.
   */
  readonly signal?: AbortSignal
}

const MESSAGE_MAX = 1000

/**
 * Runs `run` for each item of a batch, and brings what became of each, in the order of the items.
 * What an item throws is its own affair.
 * @throws FlowStoneError `items_failed` when more fail than `failureThreshold` allows.
 */
export async function settleItems<T, V>(
  items: readonly T[],
  run: (item: T, index: number) => V | Promise<V>,
  options: SettleOptions = {},
): Promise<SettledItems<T, Awaited<V>>> {
  refuseUnknown('settleItems', options, ['concurrency', 'failureThreshold', 'signal'])
  const { concurrency = 1, failureThreshold = 1, signal } = options
  if (!Number.isInteger(concurrency) || concurrency < 1)
    throw new InvalidError(`settleItems: concurrency must be a whole number from 1, got ${concurrency}`)
  const allowed = typeof failureThreshold === 'number' ? failureThreshold * items.length : failureThreshold.count
  if (!(allowed >= 0) || (typeof failureThreshold === 'number' && failureThreshold > 1))
    throw new InvalidError(
      `settleItems: failureThreshold must be a share from 0 to 1, or { count: a whole number }, got ${shown(failureThreshold)}`,
    )
  const ok = new Map<number, { item: T; value: Awaited<V> }>()
  const errors = new Map<number, ItemError>()
  const waiting = items.entries()
  let isOver = false
  const work = async (): Promise<void> => {
    for (const [index, item] of waiting) {
      if (isOver) return
      signal?.throwIfAborted()
      try {
        ok.set(index, { item, value: await run(item, index) })
      } catch (error) {
        signal?.throwIfAborted()
        if (error instanceof CancelledError) throw error
        errors.set(index, errorOf(error))
        // A hair of tolerance: 0.2 of 15 is 3, whatever the doubles say.
        if (errors.size > allowed + 1e-9) throw tooMany(errors, items.length, failureThreshold)
      }
    }
  }
  try {
    await Promise.all(Array.from({ length: Math.min(concurrency, items.length) }, work))
  } finally {
    isOver = true
  }
  const settled: SettledItems<T, Awaited<V>> = { ok: [], failed: [] }
  for (const [index, item] of items.entries()) {
    const done = ok.get(index)
    const error = errors.get(index)
    if (done) settled.ok.push(done)
    else if (error) settled.failed.push({ item, error })
  }
  return settled
}

function errorOf(thrown: unknown): ItemError {
  const { code, ...info } = infoOf(thrown)
  return { code: code === 'thrown_non_error' ? 'error' : code, message: cut(describe({ code, ...info }), MESSAGE_MAX) }
}

function tooMany(
  errors: ReadonlyMap<number, ItemError>,
  total: number,
  threshold: number | { readonly count: number },
): FlowStoneError {
  const [first] = errors.values()
  const limit = typeof threshold === 'number' ? `${threshold} of ${total}` : `${threshold.count}`
  const count = errors.size === 1 ? '1 item' : `${errors.size} items`
  return new FlowStoneError(
    'items_failed',
    `${count} of the batch failed, more than failureThreshold (${limit}) allows; the first: ${first?.message}`,
  )
}

/** An item and what became of it. */
export type ItemResult<T, V> =
  | { readonly item: T; readonly status: 'ok'; readonly value: V; readonly error?: undefined }
  | { readonly item: T; readonly status: 'failed'; readonly value?: undefined; readonly error: ItemError }

type BatchResult<T, V> =
  | { readonly key: Batch<T>; readonly status: 'ok'; readonly value: SettledItems<T, V> }
  | { readonly key: Batch<T>; readonly status: 'failed'; readonly error: ItemError }

/**
 * For a gather over batches: item by item what became of it. All items of an instance that failed
 * as a whole have failed with its error.
 *
 *     gather: async (results) => {
 *       for await (const { item, status, error } of itemResults(results)) …
 */
export async function* itemResults<T, V>(results: AsyncIterable<BatchResult<T, V>>): AsyncGenerator<ItemResult<T, V>> {
  for await (const result of results) {
    if (result.status === 'failed') {
      for (const item of result.key.items) yield { item, status: 'failed', error: result.error }
      continue
    }
    for (const { item, value } of result.value.ok) yield { item, status: 'ok', value }
    for (const { item, error } of result.value.failed) yield { item, status: 'failed', error }
  }
}
