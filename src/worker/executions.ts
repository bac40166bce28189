/** Which piece of user code runs: known wherever it goes on, so that what ends the process can be told by name. */
import { AsyncLocalStorage } from 'node:async_hooks'

export interface Execution {
  readonly run: string
  readonly asset: string
  /** Of an instance. */
  readonly index?: number
}

export const executions = new AsyncLocalStorage<Execution>()
