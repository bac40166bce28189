/**
 * Which piece of user code runs. It is known wherever that code continues, so that the code that
 * ends the process can be named.
 */
import { AsyncLocalStorage } from 'node:async_hooks'

export interface Execution {
  readonly runId: string
  readonly asset: string
  /** Of an instance. */
  readonly index?: number
}

export const executions = new AsyncLocalStorage<Execution>()

/**
 * What is called just now, of code that was seen to wait for nothing: to give it a store of its own
 * would take longer than many an instance does.
 */
let called: Execution | undefined

/** Calls `code` in the name of an execution. What it does after it has returned is nobody's. */
export function callAs<T, A extends unknown[]>(execution: Execution, code: (...given: A) => T, ...given: A): T {
  called = execution
  try {
    return code(...given)
  } finally {
    called = undefined
  }
}

/** Whose code runs now, as far as is known. */
export function running(): Execution | undefined {
  return called ?? executions.getStore()
}
