/** What of a flow is needed to start and read runs, and how its errors are answered. */
import { byPart } from '../../../streams/by.ts'
import { ConflictError, FlowStoneError, InvalidError } from '../../../streams/errors.ts'
import { cut } from '../../../streams/text.ts'
import type { RunView } from '../../client/run-view.ts'
import type { RunOptions } from '../../define/run-options.ts'
import { HttpProblem } from '../shared/problem.ts'

/** A run, as `flow.run` has it. */
export interface RunOverHttp {
  readonly id: string
  /** Whether the call that gave it started it. */
  readonly isNew: boolean
  /** How the run is. Undefined when there is none of this id. */
  view(): Promise<RunView | undefined>
  /** The target's value. Rejects with RunFailedError. `signal` ends the wait. */
  result(options: { readonly signal?: AbortSignal }): Promise<unknown>
}

/** What of a flow starts and reads runs. */
export interface RunsOverHttp {
  /** Starts a run of `'pipeline/asset'`, as `flow.request` does. */
  request(target: string, options: RunOptions): Promise<RunOverHttp>
  /** The run of that id, as `flow.run` gives it. */
  run(id: string): RunOverHttp
  /** The same for somebody else: what it starts says so. */
  as?(by: string): Pick<RunsOverHttp, 'request'>
}

/** What starts runs in the name of the sender of a request. */
export function startsFor<F extends Pick<RunsOverHttp, 'request' | 'as'>>(
  flow: F,
  kind: 'http' | 'webhook',
  name: string,
): Pick<RunsOverHttp, 'request'> {
  return flow.as?.(byPart(kind, name)) ?? flow
}

/**
 * What a request that could not be stored is answered with. What its sender got wrong is named;
 * what others asked for is not.
 */
export function startProblem(thrown: unknown): unknown {
  if (thrown instanceof ConflictError) return new HttpProblem('key_conflict')
  if (thrown instanceof InvalidError) return new HttpProblem('invalid_input', reasonIn(thrown))
  if (thrown instanceof FlowStoneError && thrown.code === 'not_found') return new HttpProblem('unknown_asset')
  return thrown
}

/** Without the name of our function. */
export function reasonIn({ message }: Error): string {
  return cut(message.replace(/^(request|body): /, ''), 1000, '…')
}
