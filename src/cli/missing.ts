/** Whether there is nothing to show because what was named is not there at all. */
import { nearest } from '../../streams/did-you-mean.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import type { PipelineGraph } from '../client/inspect/pipelines.ts'
import { targetOf } from '../runs/owner.ts'
import type { Reading } from './at.ts'

const NAME_ALONE = /^[A-Za-z0-9_-]+$/

/** `PIPELINE/ASSET` of an asset, also of its name alone where one pipeline has it. */
export async function fullAsset(flow: Reading, named: string): Promise<string> {
  return await fullName(flow, 'asset', named, ({ assets }) => assets.map(({ name }) => name))
}

/** The same of a subscription. */
export async function fullSubscription(flow: Reading, named: string): Promise<string> {
  return await fullName(flow, 'subscription', named, ({ subscriptions }) => subscriptions)
}

async function fullName(
  flow: Reading,
  what: string,
  named: string,
  namesOf: (pipeline: PipelineGraph) => readonly string[],
): Promise<string> {
  if (!NAME_ALONE.test(named)) return named
  const all = await flow.inspect.pipelines()
  const having = all.filter((pipeline) => namesOf(pipeline).includes(named)).map(({ name }) => `${name}/${named}`)
  const [only, more] = having
  if (only !== undefined && more === undefined) return only
  if (only !== undefined)
    throw new InvalidError(`several pipelines have ${withArticle(what)} ${named}; name one: ${having.join(', ')}`)
  const hint = nearest(named, all.flatMap(namesOf))
  throw new FlowStoneError('not_found', `no pipeline has ${withArticle(what)} ${named}${hint}`)
}

function withArticle(what: string): string {
  return what === 'asset' ? 'an asset' : `a ${what}`
}

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
