/**
 * Messages that start runs. A worker that has the code of a subscription reads its stream and
 * records what it took: `subscription.taken`, a fact for each range of messages.
 *
 * - `subscription.taken` starts a run for each event, or puts it into its group, or refuses it.
 * - `event.retried` does the same for a message that was refused.
 * - `event.timer_fired` starts the run of a group, if it is time (group.ts).
 * - `event.refused` does nothing. It is there to be listed.
 *
 * The id of a run follows from the event's key, so a message that comes twice starts one run.
 */
import type { FactOf } from '../../streams/facts.ts'
import type { Effect } from '../effects.ts'
import { type Key, stateKey, type View } from '../state.ts'
import { addToGroup } from './group.ts'
import { refusedEvent, requestEffect } from './request.ts'

type TakenFact = FactOf<'subscription.taken'> | FactOf<'event.retried'>

export function needsOfTaken(_view: View, { ids, data }: TakenFact): Key<unknown>[] {
  const groups = new Set(data.events.flatMap(({ group }) => group ?? []))
  return [
    stateKey.pipeline(ids.pipeline, data.version),
    stateKey.subscription(ids.pipeline, ids.subscription),
    ...[...groups].map((group) => stateKey.eventGroup(ids.pipeline, ids.subscription, group)),
  ]
}

export function onTaken(view: View, fact: TakenFact): Effect[] {
  const { ids, data, seq, timeMs } = fact
  const key = stateKey.subscription(ids.pipeline, ids.subscription)
  const state = view.edit(key, () => ({ seq, source: ids.source, to: 0, taken: 0, refused: 0 }))
  state.seq = seq
  if (fact.name === 'subscription.taken') {
    state.source = ids.source
    state.to = fact.data.to
  }
  const pipeline = view.get(stateKey.pipeline(ids.pipeline, data.version))
  const spec = pipeline?.subscriptions?.find(({ name }) => name === ids.subscription)
  const place = { source: ids.source, stream: data.stream, factSeq: seq }
  const effects: Effect[] = []
  for (const event of data.events) {
    const refused =
      event.refused ?? (spec ? undefined : `version ${data.version} of pipeline ${ids.pipeline} is not registered`)
    if (refused !== undefined || !pipeline || !spec) {
      state.refused += 1
      const refusal = refusedEvent(ids.pipeline, ids.subscription, place, event, refused ?? '')
      effects.push({ do: 'fact', fact: refusal })
      continue
    }
    state.taken += 1
    if (event.group === undefined) effects.push(requestEffect(pipeline, spec, place, event))
    else effects.push(...addToGroup(view, pipeline, spec, place, event, timeMs))
  }
  return effects
}
