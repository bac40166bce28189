/** Whether there is nothing to show because what was named is not there at all. */
import { nearest } from '../../streams/did-you-mean.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import type { PipelineGraph } from '../client/inspect/pipelines.ts'
import { targetOf } from '../runs/owner.ts'
import type { Reading } from './at.ts'

/**
 * Called where a look at `PIPELINE/NAME` found nothing: throws `not_found` if no pipeline that is
 * registered has it. What was found is shown, also of a pipeline that has it no more.
 */
export async function mustHaveAsset(flow: Reading, named: string): Promise<void> {
  const { pipeline, asset } = targetOf('asset', named)
  const found = await mustHavePipeline(flow, pipeline)
  refuseOther(
    'asset',
    pipeline,
    asset,
    found?.assets.map(({ name }) => name),
  )
}

/** The same of a subscription. */
export async function mustHaveSubscription(flow: Reading, named: string): Promise<void> {
  const { pipeline, asset: subscription } = targetOf('--subscription', named)
  const found = await mustHavePipeline(flow, pipeline)
  refuseOther('subscription', pipeline, subscription, found?.subscriptions)
}

/** Undefined where none is known: without an engine the state does not say which there are. */
export async function mustHavePipeline(flow: Reading, pipeline: string): Promise<PipelineGraph | undefined> {
  const all = await flow.inspect.pipelines()
  const found = all.find(({ name }) => name === pipeline)
  if (found || all.length === 0) return found
  const names = all.map(({ name }) => name)
  throw new FlowStoneError('not_found', `there is no pipeline ${pipeline}${nearest(pipeline, names)}`)
}

function refuseOther(what: string, pipeline: string, name: string, names: readonly string[] | undefined): void {
  if (!names || names.includes(name)) return
  throw new FlowStoneError('not_found', `pipeline ${pipeline} has no ${what} ${name}${nearest(name, names)}`)
}
