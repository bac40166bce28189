/** Why there is no run of this id: `pruned` where that is certain, else `not_found`. */
import { FlowStoneError } from '../../streams/errors.ts'
import type { Run } from './run.ts'

export async function whyNoRun(run: Pick<Run, 'id' | 'input'>): Promise<unknown> {
  try {
    await run.input()
  } catch (error) {
    return error
  }
  // It came meanwhile.
  return new FlowStoneError('not_found', `there is no run ${run.id}`)
}
