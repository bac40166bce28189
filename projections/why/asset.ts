/** What happened to an asset of a run, from its plan to its present state. */
import type { Fact, FactOf } from '../../streams/facts.ts'
import type { Phase } from '../../streams/run-schemas.ts'
import { isEnded } from '../run/end.ts'
import { extendedLink, extensionOf, resolvedLinks, suspendedLink, waitWords } from './gates.ts'
import { assetPlanLinks, planFact } from './planned.ts'
import { isPaused, scatterLinks } from './scatters.ts'
import { type AssetStory, type Change, factOf, lastOf, type RunStory } from './story.ts'
import type { WhyLink } from './types.ts'
import { because, byWords, countWords, errorWords, linkOf, spanWords, timeWords } from './words.ts'

/** Of many attempts these are said: the first ones, and the last ones. */
const FIRST = 2
const LAST = 3

const CODE: Readonly<Record<Phase, string>> = {
  execute: '',
  scatter: "'s scatter function",
  gather: "'s gather",
  signal: "'s code after the gate",
  timeout: "'s onTimeout",
}

/** The whole chain of an asset, without that of the run before it. */
export function assetLinks(story: RunStory, asset: AssetStory): WhyLink[] {
  const links = [...assetPlanLinks(story, asset), ...readyLinks(story, asset), ...eventLinks(story, asset)]
  const present = presentLink(story, asset)
  const last = links.at(-1)
  if (last && last.fact.seq === present.fact.seq && last.fact.shard === present.fact.shard) return links
  return [...links, present]
}

/** The last dependency that it needed. */
function readyLinks(story: RunStory, asset: AssetStory): WhyLink[] {
  const queued = asset.changes.find(({ after }) => after.attempt > 0 && after.status === 'queued')?.fact
  if (queued?.name !== 'asset.materialized' || queued.ids.asset === asset.name) return []
  const text = `${asset.name} could start: ${queued.ids.asset}, the last of what it depends on, had its value.`
  return [linkOf(queued, { run: story.id, asset: queued.ids.asset }, text)]
}

function eventLinks(story: RunStory, asset: AssetStory): WhyLink[] {
  const attempts = asset.changes.filter(({ fact }) => fact.name === 'attempt.ended')
  const left = new Set(attempts.length > FIRST + LAST + 1 ? attempts.slice(FIRST, -LAST) : [])
  const lastLeft = [...left].at(-1)
  const links: WhyLink[] = []
  for (const change of asset.changes) {
    if (left.has(change)) {
      if (change === lastLeft) links.push(manyLink(story, asset, change, left.size))
      continue
    }
    links.push(...changeLinks(story, asset, change))
  }
  const scatter = scatterLinks(story, asset)
  const ends = new Set(['asset.materialized', 'asset.failed', 'asset.skipped', 'asset.cancelled'])
  const at = links.findIndex(({ fact }) => ends.has(fact.kind))
  // A scatter stands before what followed it: its gather, and the end.
  const after = scatter.length === 0 ? -1 : links.findIndex(({ fact }) => fact.seq > (scatter.at(-1)?.fact.seq ?? 0))
  const place = after >= 0 ? after : at >= 0 ? at : links.length
  return links.toSpliced(place, 0, ...scatter)
}

/** What a fact made of the asset, where that is of interest: its end, a failure, a gate. */
function changeLinks(story: RunStory, asset: AssetStory, change: Change): WhyLink[] {
  const { fact } = change
  switch (fact.name) {
    case 'attempt.ended':
      return [linkOf(fact, { run: story.id, asset: asset.name }, attemptWords(asset, fact, change))]
    case 'asset.suspended': {
      const links = [suspendedLink(story, asset, fact), ...extendedLink(story, asset, fact.data.gate)]
      // The gate had ended before anybody waited there.
      const early = asset.facts.find(
        (other) => other.name === 'gate.resolved' && other.ids.gate === fact.data.gate && other.seq < fact.seq,
      )
      return early?.name === 'gate.resolved' ? [...resolvedLinks(story, asset, early), ...links] : links
    }
    case 'gate.resolved':
      return resolvedLinks(story, asset, fact)
    case 'run.adopted':
    case 'run.adopt_requested': {
      const text = `The run went on with version ${versionOf(fact)} of its pipeline, and ${asset.name} was planned anew.`
      return [linkOf(fact, { run: story.id, asset: asset.name }, text)]
    }
    case 'asset.materialized':
    case 'asset.failed':
    case 'asset.skipped':
    case 'asset.cancelled':
      return fact.ids.asset === asset.name ? [endLink(story, asset, fact)] : []
    default:
      return []
  }
}

function versionOf({ data }: FactOf<'run.adopted' | 'run.adopt_requested'>): string {
  return data.version
}

function manyLink(story: RunStory, asset: AssetStory, { fact }: Change, count: number): WhyLink {
  const error = fact.name === 'attempt.ended' ? `; the last of them: ${errorWords(fact.data.error)}` : ''
  const text = `${countWords(count, 'more attempt')} of ${asset.name} ended without a value${error}.`
  return linkOf(fact, { run: story.id, asset: asset.name }, text)
}

function attemptWords(asset: AssetStory, fact: FactOf<'attempt.ended'>, { after }: Change): string {
  const { outcome, error, phase, worker, durationMs } = fact.data
  const what = `Attempt ${fact.ids.attempt} of ${asset.name}${CODE[phase]}`
  const how = {
    error: `failed on worker ${worker} after ${spanWords(durationMs)}: ${errorWords(error)}`,
    terminal: `failed for good on worker ${worker}: ${errorWords(error)}`,
    timeout: `ran out of time after ${spanWords(durationMs)}: ${errorWords(error)}`,
    lost: `lost its worker: ${errorWords(error)}`,
    returned: `was returned by worker ${worker}, which costs no attempt: ${errorWords(error)}`,
  }[outcome]
  return `${what} ${how}${nextWords(asset, fact, after)}.`
}

/** What follows from an attempt that brought nothing. */
function nextWords({ spec }: AssetStory, fact: FactOf<'attempt.ended'>, after: Change['after']): string {
  if (after.ending) {
    const { maxAttempts } = spec?.retry ?? {}
    return fact.data.outcome === 'terminal' || maxAttempts === undefined
      ? '; it is not tried again'
      : `; of ${countWords(maxAttempts, 'attempt')} none is left`
  }
  if (after.dueMs === undefined) return `; attempt ${after.attempt} follows`
  return `; attempt ${after.attempt} may start at ${timeWords(after.dueMs)}`
}

type EndFact = FactOf<'asset.materialized' | 'asset.failed' | 'asset.skipped' | 'asset.cancelled'>

export function endOf(asset: AssetStory): EndFact | undefined {
  return (
    factOf(asset.facts, 'asset.materialized') ??
    factOf(asset.facts, 'asset.failed') ??
    factOf(asset.facts, 'asset.skipped') ??
    factOf(asset.facts, 'asset.cancelled')
  )
}

function endLink(story: RunStory, asset: AssetStory, fact: EndFact): WhyLink {
  return linkOf(fact, { run: story.id, asset: asset.name }, endWords(story, asset.name, fact))
}

function endWords(story: RunStory, name: string, fact: EndFact): string {
  switch (fact.name) {
    case 'asset.materialized': {
      const { attempt, worker, durationMs } = fact.data
      return `${name} has its value: attempt ${attempt} made it in ${spanWords(durationMs)} on worker ${worker}.`
    }
    case 'asset.failed': {
      const { attempts, error } = fact.data
      return `${name} failed in attempt ${attempts}: ${errorWords(error)}.`
    }
    case 'asset.skipped': {
      const status = story.assets.get(fact.data.because)?.state.status
      const was = status === undefined ? 'has no value' : status === 'failed' ? 'failed' : `was ${status}`
      return `${name} was skipped, because ${fact.data.because}, which it depends on, ${was}.`
    }
    case 'asset.cancelled':
      return `${name} was cancelled${because(fact.data.reason)}.`
    default:
      return fact satisfies never
  }
}

/** The present state of an asset in a sentence, and the fact that it follows from. */
export function presentLink(story: RunStory, asset: AssetStory): WhyLink {
  const end = endOf(asset)
  if (end && isEnded(asset.state)) return endLink(story, asset, end)
  const about = { run: story.id, asset: asset.name }
  const changed = asset.changes.at(-1)?.fact ?? planFact(story)
  if (asset.state.status === 'reused' || asset.state.status === 'given')
    return assetPlanLinks(story, asset).at(-1) ?? linkOf(changed, about, `${asset.name} is ${asset.state.status}.`)
  if (asset.state.ending)
    return linkOf(changed, about, `${asset.name} ends by this; the fact that says so is on its way.`)
  return openLink(story, asset, changed)
}

function openLink(story: RunStory, asset: AssetStory, changed: Fact): WhyLink {
  const { name, state } = asset
  const about = { run: story.id, asset: name }
  const code = `${name}${CODE[state.phase]}`
  switch (state.status) {
    case 'waiting':
      return waitingLink(story, asset, changed)
    case 'suspended': {
      const moved = extensionOf(asset, state.gate ?? '')
      const fact = moved ?? lastOf(asset.facts, 'asset.suspended') ?? changed
      return linkOf(fact, about, `${name} waits for ${waitWords(story, asset, state.gate ?? '')}.`)
    }
    case 'scattering':
    case 'running': {
      const hold = isPaused(asset)
      if (hold)
        return linkOf(hold, about, `The scatter of ${name} is paused${byWords(hold)}${because(hold.data.reason)}.`)
      const early = factOf(asset.facts, 'scatter.ended_early')
      if (early) return linkOf(early, about, `The scatter of ${name} ends early, as ${early.data.status}.`)
      if (state.status === 'scattering') {
        const fact = lastOf(asset.facts, 'scatter.resumed') ?? changed
        return linkOf(fact, about, `Instances of ${name} run or wait to run.`)
      }
      const worker = state.worker === undefined ? '' : ` on worker ${state.worker}`
      const since = timeWords(changed.timeMs)
      return linkOf(changed, about, `Attempt ${state.attempt} of ${code} runs${worker} since ${since}.`)
    }
    default: {
      const due = state.dueMs === undefined ? '' : `, to start at ${timeWords(state.dueMs)} at the earliest`
      const queue = asset.spec?.queue ?? 'default'
      const { foldedTo = Number.POSITIVE_INFINITY } = story.input
      if (changed.seq > foldedTo)
        return linkOf(
          changed,
          about,
          `Attempt ${state.attempt} of ${code} follows${due}; the state does not show it yet.`,
        )
      return linkOf(changed, about, `Attempt ${state.attempt} of ${code} is on queue ${queue}${due}.`)
    }
  }
}

/**
 * It needs what is not there yet. The fact is that of the asset which holds up all between them.
 */
function waitingLink(story: RunStory, asset: AssetStory, changed: Fact): WhyLink {
  const { name } = asset
  const [first, ...more] = blockersOf(story, asset)
  if (!first) return linkOf(changed, { run: story.id, asset: name }, `${name} waits to be queued.`)
  let root = first
  // A graph has no cycles. A path in it is no longer than there are assets.
  for (let n = 0; root.state.status === 'waiting' && n < story.assets.size; n++)
    root = blockersOf(story, root)[0] ?? root
  const also = more.length > 0 ? ` and ${more.length} more` : ''
  const over = root === first ? '' : `, and that in the end for ${root.name}`
  if (root.state.status === 'waiting')
    return linkOf(changed, { run: story.id, asset: name }, `${name} waits for ${first.name}${also}.`)
  const held = presentLink(story, root)
  return { ...held, text: `${name} waits for ${first.name}${also}${over}. ${held.text}` }
}

/** Dependencies without a value. */
function blockersOf(story: RunStory, { spec }: AssetStory): AssetStory[] {
  return (spec?.dependsOn ?? []).flatMap((name) => {
    const asset = story.assets.get(name)
    return asset && asset.state.value === undefined ? [asset] : []
  })
}

/**
 * Assets that hold up the run: open, with all that they depend on there. What waits comes first.
 */
export function frontierOf(story: RunStory): AssetStory[] {
  const open = [...story.assets.values()].filter(({ state }) => !isEnded(state) && state.status !== 'waiting')
  const rank = (asset: AssetStory): number => (isIdle(asset) ? 0 : asset.state.status === 'queued' ? 1 : 2)
  return open.toSorted((a, b) => rank(a) - rank(b) || seqOf(a) - seqOf(b))
}

/** It waits for a signal, a run, a time, or for somebody who resumes it. */
export function isIdle(asset: AssetStory): boolean {
  const { status, dueMs } = asset.state
  return status === 'suspended' || isPaused(asset) !== undefined || (status === 'queued' && dueMs !== undefined)
}

function seqOf({ changes }: AssetStory): number {
  return changes.at(-1)?.fact.seq ?? 0
}

/** From the asset that failed, or was cancelled, to one that was skipped for it. */
export function skipPath(story: RunStory, asset: AssetStory): AssetStory[] {
  const path = [asset]
  for (;;) {
    const skipped = factOf(path[0]?.facts ?? [], 'asset.skipped')
    const cause = skipped && story.assets.get(skipped.data.because)
    if (!cause || path.includes(cause)) return path
    path.unshift(cause)
  }
}
