import { FlowStoneError } from '../../../streams/errors.ts'

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

/** The task was not begun here: it goes back to its queue, and costs nothing. */
export class NotBegun extends FlowStoneError {
  constructor() {
    super('not_begun', 'the worker stops before this task had its turn')
  }
}

/** Another worker runs this very message: it will answer it. */
export class NotOurs extends FlowStoneError {
  constructor(task: string) {
    super('not_ours', `task ${task} is run by another worker`)
  }
}

/** Nothing was run: to be tried again in a while. */
export class ComeAgain extends FlowStoneError {
  readonly delayMs: number

  constructor(bucket: string, delayMs: number) {
    super('limited', `limit ${bucket} has no room for it yet`)
    this.delayMs = delayMs
  }
}
