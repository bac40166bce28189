/** What an asset waits for at a gate, and what ended its wait. */
import type { FactOf } from '../../streams/facts.ts'
import { otherOf } from './asked.ts'
import { type AssetStory, factsOf, type RunStory } from './story.ts'
import type { WhyAbout, WhyLink } from './types.ts'
import { because, byWords, errorWords, linkOf, timeWords } from './words.ts'

/** `gate 0-a.review.a1n1 (approval), until …; a signal or its deadline ends that` */
export function waitWords(story: RunStory, asset: AssetStory, gate: string): string {
  const child = factsOf(asset.facts, 'child.requested').find(({ ids }) => ids.gate === gate)
  if (child) return `run ${child.data.child} of ${child.data.request.target}; the end of that run ends the wait`
  const id = `gate ${story.id}.${asset.name}.${gate}`
  const created = factsOf(asset.facts, 'gate.created').find(({ ids }) => ids.gate === gate)
  if (!created) return `a signal at ${id}`
  const { kind, afterRetries } = created.data
  const deadlineMs = deadlineOf(asset, created)
  const what = kind === 'approval' ? 'an approval' : 'a signal'
  if (deadlineMs === undefined) return `${what} at ${id}, which has no deadline`
  const then = asset.spec?.onTimeout ? 'its onTimeout runs' : afterRetries === 'cancel' ? 'it is cancelled' : 'it fails'
  return `${what} at ${id} until ${timeWords(deadlineMs)}; without one, ${then}`
}

function deadlineOf(asset: AssetStory, { ids, data }: FactOf<'gate.created'>): number | undefined {
  return extensionOf(asset, ids.gate)?.data.deadlineMs ?? data.deadlineMs
}

/** It began to wait. */
export function suspendedLink(story: RunStory, asset: AssetStory, fact: FactOf<'asset.suspended'>): WhyLink {
  const { gate } = fact.data
  const about = { run: story.id, asset: asset.name, gate }
  return linkOf(fact, about, `${asset.name} waits for ${waitWords(story, asset, gate)}.`)
}

export function extensionOf(asset: AssetStory, gate: string): FactOf<'gate.extended'> | undefined {
  return factsOf(asset.facts, 'gate.extended').findLast(({ ids }) => ids.gate === gate)
}

/** Its deadline was moved, the last time. */
export function extendedLink(story: RunStory, asset: AssetStory, gate: string): WhyLink[] {
  const fact = extensionOf(asset, gate)
  if (!fact) return []
  const { why, deadlineMs, timeouts } = fact.data
  const reason = why === 'retry' ? `nobody had answered, for the ${nth(timeouts)} time` : 'somebody asked for more time'
  const about = { run: story.id, asset: asset.name, gate }
  return [linkOf(fact, about, `The deadline was moved to ${timeWords(deadlineMs)}, because ${reason}${byWords(fact)}.`)]
}

function nth(n: number): string {
  return n === 1 ? 'first' : n === 2 ? 'second' : n === 3 ? 'third' : `${n}th`
}

/** The wait ended. */
export function resolvedLinks(story: RunStory, asset: AssetStory, fact: FactOf<'gate.resolved'>): WhyLink[] {
  const { gate, outcome, source, reason, child } = fact.data
  const about: WhyAbout = { run: story.id, asset: asset.name, gate }
  if (child) {
    const run = factsOf(asset.facts, 'child.requested').find(({ ids }) => ids.gate === gate)?.data.child
    const why = child.error ? `: ${errorWords(child.error)}` : ''
    const at = child.asset === undefined ? '' : ` at ${child.asset}`
    const cause = run === undefined ? undefined : otherOf(story, 'run.finished', { run })
    const text = `Run ${run ?? '(unknown)'} ended as ${child.status}${at}${why}`
    return [
      ...(cause ? [linkOf(cause, { run: cause.ids.run }, `${text}.`)] : []),
      linkOf(fact, about, `${cause ? `The end of run ${run}` : `${text}, and that`} ended the wait of ${asset.name}.`),
    ]
  }
  const id = `${story.id}.${asset.name}.${gate}`
  switch (outcome) {
    case 'signaled': {
      const from = source === undefined ? '' : ` from ${source}`
      return [linkOf(fact, about, `A signal${from} answered gate ${id}${byWords(fact)}.`)]
    }
    case 'timed_out':
      return [linkOf(fact, about, `Nobody answered gate ${id} in time.`)]
    case 'cancelled':
      return [linkOf(fact, about, `Gate ${id} was cancelled${byWords(fact)}${because(reason)}.`)]
    default:
      return outcome satisfies never
  }
}
