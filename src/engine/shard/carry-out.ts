/**
 * Carries out a decision, whatever its data. Some data, such as a fact larger than a message may
 * be, makes every engine fail each time. Such a failure must not end the term of an engine. It
 * becomes a failure of the run, or a refusal.
 */
import type { Effect } from '../../../projections/effects.ts'
import { refusalBecause } from '../../../projections/run/request.ts'
import { cutTexts } from '../../../streams/cut.ts'
import { FlowStoneError, InvalidError, messageOf } from '../../../streams/errors.ts'
import type { FactDraft } from '../../../streams/facts.ts'
import { assetName, parseRunId } from '../../../streams/ids.ts'
import { factEntry, stoppingTimer } from '../../log/entries.ts'
import type { Logger } from '../../telemetry.ts'
import { type DispatchContext, dispatch } from './dispatch.ts'

/** No text in a decision that replaces another one is longer. */
const TEXT_MAX = 300
const IN_DATA: ReadonlySet<string> = new Set(['invalid', 'refused', 'internal', 'undecodable', 'bad_fact'])

/** `repair`: see `taskEntry`. */
export async function carryOut(
  context: DispatchContext,
  effect: Effect,
  nowMs: number,
  logger: Logger,
  repair = '',
): Promise<void> {
  try {
    await dispatch(context, effect, nowMs, repair)
  } catch (error) {
    if (!liesInData(error)) throw error
    const instead = insteadOf(effect, error)
    const what = effect.do === 'fact' ? `${effect.do} ${effect.fact.name}` : effect.do
    logger.error(
      `a decision (${what}) could not be carried out: ${messageOf(error)}; ${instead ? `${instead.name} is appended instead` : 'it is left out'}`,
      { shard: context.shard },
    )
    if (!instead) return
    const entry = factEntry(context.names, context.shard, instead)
    const stops = effect.do === 'fact' ? effect.stops : undefined
    await context.log.appendOnce(stops ? stoppingTimer(context.names, context.shard, entry, stops) : entry)
  }
}

/** Whether the same decision would fail again, for whoever carries it out. */
function liesInData(error: unknown): boolean {
  if (error instanceof FlowStoneError) return IN_DATA.has(error.code)
  return error instanceof TypeError || error instanceof RangeError || error instanceof SyntaxError
}

function insteadOf(effect: Effect, thrown: unknown): FactDraft | undefined {
  const tooLarge = thrown instanceof InvalidError && thrown.message.includes('max_payload')
  const code = tooLarge ? 'too_large' : thrown instanceof FlowStoneError ? thrown.code : 'internal'
  const error = cutTexts({ code, message: messageOf(thrown) }, TEXT_MAX)
  switch (effect.do) {
    case 'fact':
      return { ...effect.fact, data: cutTexts(effect.fact.data, TEXT_MAX) } as FactDraft
    case 'plan':
      return { name: 'run.planned', ids: { run: parseRunId(effect.run).id }, data: { assets: [], error } }
    case 'task': {
      const { kind, run, asset, attempt, pipeline, partition } = effect.task
      // Nobody waits for a reminder.
      if (kind === 'reminder') return undefined
      const message = `its task cannot be enqueued: ${error.message}`
      const data = {
        run,
        asset,
        pipeline,
        ...(partition === undefined ? {} : { partition }),
        error: { code, message },
        attempts: attempt,
      }
      return { name: 'asset.failed', ids: { run: parseRunId(run).id, asset: assetName(asset), pipeline }, data }
    }
    case 'request': {
      const refusal = refusalBecause(effect.trigger, error.message)
      return { ...refusal, data: cutTexts(refusal.data, TEXT_MAX) } as FactDraft
    }
    // Its run cannot be requested: who waits for it fails.
    case 'start_child': {
      const { gate: ids } = effect
      const data = { ...ids, outcome: 'signaled', child: { status: 'failed', error } } as const
      return { name: 'gate.resolved', ids, data }
    }
    default:
      return undefined
  }
}
