import { FlowStoneError, messageOf } from '../../../streams/errors.ts'

/** How a task leaves this worker. */
export type Disposition =
  /** Nothing is left to do: its outcome is stored, or nobody waits for it. */
  | { readonly kind: 'done' }
  /** The worker stops before the task had its turn: it goes back to its queue, at no cost. */
  | { readonly kind: 'not_begun' }
  /** Another worker runs this very message, and will answer it. */
  | { readonly kind: 'not_ours' }
  | ComeAgain
  /** Its outcome could not be stored. The delivery that follows finds out what is missing. */
  | { readonly kind: 'failed'; readonly error: unknown }

/** Nothing was run, because a limit has no room for it: to be tried again in a while. */
export interface ComeAgain {
  readonly kind: 'come_again'
  readonly bucket: string
  readonly delayMs: number
}

export const DONE: Disposition = { kind: 'done' }
export const NOT_BEGUN: Disposition = { kind: 'not_begun' }
export const NOT_OURS: Disposition = { kind: 'not_ours' }

export function comeAgain(bucket: string, delayMs: number): ComeAgain {
  return { kind: 'come_again', bucket, delayMs }
}

/** Why nothing was run, for people. */
export function noRoomText({ bucket }: ComeAgain): string {
  return `limit ${bucket} has no room for it yet`
}

/** Why a task is given back, for people. */
export function reasonText(disposition: Exclude<Disposition, { readonly kind: 'done' }>, task: string): string {
  switch (disposition.kind) {
    case 'not_begun':
      return 'the worker stops before this task had its turn'
    case 'not_ours':
      return `task ${task} is run by another worker`
    case 'come_again':
      return noRoomText(disposition)
    case 'failed':
      return messageOf(disposition.error)
    default:
      return disposition satisfies never
  }
}

// The other two are errors, and thrown: they are reasons of an AbortSignal. What waits for such a
// signal (user code, a limiter, a timer) rejects with its reason, and knows no dispositions.

/** Why a wait was ended when the scatter was paused: not begun. */
export class Paused extends FlowStoneError {
  constructor() {
    super('paused', 'the scatter is paused')
  }
}

/** Why a signal was aborted when the worker drains: not a failure. */
export class HandBack extends FlowStoneError {
  constructor() {
    super('returned', 'the worker stops; the work goes to another one')
  }
}
