/** `flow.adopt`: a run goes on with another version of its pipeline. */
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { factPath } from '../../streams/facts.ts'
import { parseRunId } from '../../streams/ids.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import { factEntry } from '../log/entries.ts'
import { leaderGet } from '../log/nats.ts'
import { missingRun } from '../log/pruned.ts'
import { factOf } from '../log/read-fact.ts'
import { runFact } from '../log/run-fact.ts'
import { newestPipeline } from '../runs/registered.ts'
import { Run } from './run.ts'
import type { RunDeps } from './run-view.ts'

/** A run that goes on with another version of its pipeline, as `flow.adopt` reports it. */
export interface Adopted {
  readonly run: string
  /** The version that the run goes on with, and the one before. */
  readonly version: string
  readonly from: string
  /** Assets that the run makes now, too: dependencies that the earlier version had not. */
  readonly added: readonly string[]
}

const ANSWER_MS = 10_000
const LOOK_MS = 50

/**
 * `spec`: undefined for the newest version that is registered. Throws `not_found`, `not_adoptable`
 * with what does not fit, and `no_engine`.
 */
export async function adopt(
  deps: RunDeps,
  runId: string,
  spec: Pick<PipelineSpec, 'name' | 'version'> | undefined,
): Promise<Adopted> {
  const { connection, names, logOf, by } = deps
  const { id: run, shard } = parseRunId(runId)
  const view = await new Run(deps, run).view()
  if (!view) throw await missingRun(deps, run)
  // The state lags: a caller that has the run's value knows of its end before the state does.
  if (view.finishedAt !== undefined || (await runFact(deps, run, 'run.finished'))) throw hasEnded(run)
  if (spec && spec.name !== view.pipeline)
    throw new InvalidError(`adopt: run ${run} is of pipeline ${view.pipeline}, not ${spec.name}`)
  const wanted = spec?.version ?? (await newestPipeline(deps, shard, view.pipeline))?.version
  if (wanted === undefined)
    throw new InvalidError(
      `adopt: pipeline ${view.pipeline} is not registered; start a worker with the new version first`,
    )
  const draft = { name: 'run.adopt_requested', ids: { run }, data: { version: wanted } } as const
  const { seq } = await logOf(shard).append(factEntry(names, shard, draft, by))
  const ids = { run, request: String(seq) }
  const untilMs = performance.now() + ANSWER_MS
  for (;;) {
    for (const name of ['run.adopted', 'run.adopt_refused'] as const) {
      const subject = names.fact(shard, factPath(name, ids))
      const message = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj: subject }))
      const fact = message && factOf(names, shard, message)
      if (fact?.name === 'run.adopted') {
        const { version: to, from, added } = fact.data
        return { run, version: to, from, added }
      }
      if (fact?.name === 'run.adopt_refused') {
        // It may have ended since.
        if (await runFact(deps, run, 'run.finished')) throw hasEnded(run)
        throw new FlowStoneError(
          'not_adoptable',
          `run ${run} cannot go on with version ${wanted}: ${fact.data.misfits.join('; ')}. Start a worker with the old version, or cancel the run`,
        )
      }
    }
    if (performance.now() > untilMs) {
      // Of a run that was sealed meanwhile, no engine answers.
      if (await runFact(deps, run, 'run.finished')) throw hasEnded(run)
      throw new FlowStoneError(
        'no_engine',
        `no engine has answered within ${ANSWER_MS / 1000} s; it decides when one is active`,
      )
    }
    await connection.ready(LOOK_MS)
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
  }
}

function hasEnded(run: string): FlowStoneError {
  return new FlowStoneError('not_adoptable', `run ${run} cannot go on with another version: the run has ended`)
}
