/** What the key of a caller is for. */
import { FlowStoneError } from '../../../streams/errors.ts'
import { whyNoRun } from '../../client/no-run.ts'
import type { RunView } from '../../client/run-view.ts'
import { HttpProblem } from '../shared/problem.ts'
import type { Call, Caller } from './route.ts'

/** The run, if the caller may see it. Throws the problem `unknown_run`, and `pruned`. */
export async function runFor(call: Pick<Call, 'flow' | 'caller'>, id: string): Promise<RunView> {
  const view = await call.flow.run(id).view()
  if (!view) throw await noRun(call, id)
  if (!seesRun(call.caller, view)) throw new HttpProblem('unknown_run')
  return view
}

/** Of a run that is gone nobody knows whose it was, so only who sees all learns why it is gone. */
async function noRun({ flow, caller }: Pick<Call, 'flow' | 'caller'>, id: string): Promise<unknown> {
  if (!caller.seesAll) return new HttpProblem('unknown_run')
  const error = await whyNoRun(flow.run(id))
  const isMissing = error instanceof FlowStoneError && error.code === 'not_found'
  return isMissing ? new HttpProblem('unknown_run', error.message) : error
}

/** By the run that it is of: `<run>.<asset>`, or `<run>.<asset>.<gate>`. */
export async function partFor(call: Pick<Call, 'flow' | 'caller'>, id: string): Promise<void> {
  if (call.caller.seesAll) return
  await runFor(call, id.slice(0, id.indexOf('.')))
}

export function seesRun(caller: Caller, { pipeline, target }: Pick<RunView, 'pipeline' | 'target'>): boolean {
  return caller.covers(pipeline, target)
}

/** For lists: those that the caller may see. */
export async function gatesFor<G extends { readonly run: string }>(
  { flow, caller }: Pick<Call, 'flow' | 'caller'>,
  gates: readonly G[],
): Promise<G[]> {
  if (caller.seesAll) return [...gates]
  const runs = [...new Set(gates.map(({ run }) => run))]
  const views = await Promise.all(runs.map(async (run) => [run, await flow.run(run).view()] as const))
  const seen = new Map(views)
  return gates.filter(({ run }) => {
    const view = seen.get(run)
    return view !== undefined && seesRun(caller, view)
  })
}

/** Of what belongs to a pipeline and makes an asset of it. */
export function madeFor<T extends { readonly pipeline: string; readonly target: string }>(
  caller: Caller,
  all: readonly T[],
): T[] {
  return all.filter((one) => caller.covers(one.pipeline, one.target))
}

/** For parts of a run that no engine has seen yet. */
export function noneYet(error: unknown): never[] {
  if (error instanceof FlowStoneError && error.code === 'not_found') return []
  throw error
}
