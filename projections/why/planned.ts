/** Why an asset of a run is made, or taken as it is. */
import type { Fact, FactOf } from '../../streams/facts.ts'
import { hashOfValue } from '../../streams/fingerprint.ts'
import type { EarlierValue, ReuseReason } from '../../streams/run-schemas.ts'
import { shapeDifferences } from '../../streams/shape.ts'
import { upstreamOf } from '../run/plan.ts'
import { specOf } from '../state.ts'
import { otherOf } from './asked.ts'
import { type AssetStory, factOf, factsOf, type RunStory } from './story.ts'
import type { WhyLink } from './types.ts'
import { linkOf, listWords } from './words.ts'

const REUSED: Readonly<Record<ReuseReason, string>> = {
  present: 'there was a value',
  current: 'it was made of the same values, by the same code',
  earlier_run: 'the run before had it',
}

/** Of the run: what it takes as it is, and what it makes. */
export function planLinks(story: RunStory): WhyLink[] {
  const about = { run: story.id }
  const error = story.planned?.data.error
  if (story.planned && error) return [linkOf(story.planned, about, `The plan failed: ${error.message}.`)]
  const assets = [...story.assets.values()]
  const links: WhyLink[] = []
  const reused = Map.groupBy(
    assets.filter(({ state }) => state.status === 'reused'),
    ({ state }) => state.from?.why ?? 'present',
  )
  for (const [why, some] of reused) {
    const names = some.map(({ name, state }) => (state.from?.run ? `${name} (of run ${state.from.run})` : name))
    const last = some.map(takenBy).reduce((a, b) => ((b?.seq ?? 0) > (a?.seq ?? 0) ? b : a))
    links.push(linkOf(last ?? planFact(story), about, `It takes ${listWords(names)} as is: ${REUSED[why]}.`))
  }
  const made = assets.filter(({ state }) => state.status !== 'reused' && state.status !== 'given')
  const only = made.length === 1 && made[0]?.name === story.request.data.target
  if (made.length > 0 && !(only && reused.size === 0))
    links.push(
      linkOf(planFact(story), about, `It makes ${listWords(made.map(({ name }) => name))}${modeWords(story)}.`),
    )
  return links.toSorted((a, b) => a.fact.seq - b.fact.seq)
}

function modeWords({ request }: RunStory): string {
  const { upstream, redrive, retry } = request.data
  return redrive || retry ? '' : ` (upstream is ${upstream})`
}

/** The fact that the plan follows from: without a look at what is there, the request is enough. */
export function planFact({ planned, request }: RunStory): Fact {
  return planned ?? request
}

function takenBy({ changes }: AssetStory): Fact | undefined {
  return changes.find(({ after }) => after.status === 'reused')?.fact
}

/** Of one asset. Empty while nothing is planned. */
export function assetPlanLinks(story: RunStory, asset: AssetStory): WhyLink[] {
  const about = { run: story.id, asset: asset.name }
  const { state, name } = asset
  if (state.status === 'given') return [linkOf(story.request, about, `${name} was given to the run.`)]
  if (state.status === 'reused') {
    const from = state.from?.run
    const maker = from === undefined ? undefined : otherOf(story, 'asset.materialized', { run: from, asset: name })
    const run = from === undefined ? '' : ` of run ${from}`
    const taken = `The run takes the value of ${name}${run}: ${REUSED[state.from?.why ?? 'present']}.`
    return [
      ...(maker ? [linkOf(maker, { run: maker.ids.run, asset: name }, `Run ${maker.ids.run} made ${name}.`)] : []),
      linkOf(takenBy(asset) ?? planFact(story), about, taken),
    ]
  }
  const { fact, why } = whyMade(story, asset)
  return [linkOf(fact, about, `The run makes ${name}: ${why}.`)]
}

interface Reason {
  readonly fact: Fact
  readonly why: string
}

function whyMade(story: RunStory, asset: AssetStory): Reason {
  const { name, spec } = asset
  const { target, upstream, redrive, retry } = story.request.data
  const fact = planFact(story)
  if (redrive || retry) return whyAgain(story, asset)
  if (name === target) return { fact, why: 'it is what the run was asked for, and that is always made' }
  if (upstream === 'all') return { fact, why: "upstream is 'all', which makes each dependency again" }
  if (upstream === 'missing') {
    const input = goesBackTo(story, name).length > 0 ? ' that was made from the same input' : ''
    return { fact, why: `upstream is 'missing', and there was no value${input} in this partition` }
  }
  if (upstream === 'none') return { fact, why: "the run's version was changed, and that version needs it" }
  if (spec?.volatile) return { fact, why: 'it is volatile: no value of it is ever current' }
  const candidate = plannedAs(story, name)?.candidate
  if (!candidate) return { fact, why: "upstream is 'stale', and no value was known that could be current" }
  return whyNotCurrent(story, asset, candidate)
}

function plannedAs({ planned }: RunStory, asset: string): FactOf<'run.planned'>['data']['assets'][number] | undefined {
  return planned?.data.assets.find(({ name }) => name === asset)
}

/** A run that takes up another one. */
function whyAgain(story: RunStory, asset: AssetStory): Reason {
  const { name, spec } = asset
  const { redrive, retry, target, upstream } = story.request.data
  const fact = planFact(story)
  const scatter = plannedAs(story, name)?.redrive ?? (redrive?.asset === name ? redrive : undefined)
  if (scatter) return { fact, why: `of its scatter in run ${scatter.run} only what did not succeed runs again` }
  if (retry?.from === name) return { fact: story.request, why: 'the retry was asked for from here on' }
  const earlier = retry?.run ?? redrive?.run ?? ''
  const again = spec?.dependsOn.find((dependency) => {
    const state = story.assets.get(dependency)?.state
    return state !== undefined && state.status !== 'reused' && state.status !== 'given'
  })
  const input = changedInput(story, name, earlier)
  if (input !== undefined) return { fact: story.request, why: `input ${input} is another one than in run ${earlier}` }
  const differences = codeDifferences(story, asset, earlier)
  if (differences.length > 0)
    return {
      fact: story.registered ?? fact,
      why: `its code is another one than in run ${earlier}: ${differences.join(', ')}`,
    }
  if (again !== undefined) return { fact, why: `${again}, which it depends on, is made by this run` }
  const had = `run ${earlier} had no value of it`
  return { fact, why: name === target || upstream !== 'stale' ? had : `${had}, and no other one is current` }
}

function goesBackTo({ pipeline }: RunStory, asset: string): string[] {
  if (!pipeline) return []
  return upstreamOf(pipeline, asset).filter((name) => specOf(pipeline, name)?.input)
}

function changedInput(story: RunStory, asset: string, earlier: string): string | undefined {
  const before = otherOf(story, 'run.requested', { run: earlier })
  if (!before) return undefined
  const [was, is] = [before.data.input ?? {}, story.request.data.input ?? {}]
  return goesBackTo(story, asset).find((name) => {
    const [a, b] = [was[name], is[name]]
    return (a && hashOfValue(a)) !== (b && hashOfValue(b))
  })
}

/** In what its code differs from that of another run, by name. */
function codeDifferences(story: RunStory, { name, spec }: AssetStory, run: string): string[] {
  const request = otherOf(story, 'run.requested', { run })
  const before =
    request &&
    factsOf([...story.input.facts, ...(story.input.others ?? [])], 'pipeline.registered').find(
      ({ ids }) => ids.pipeline === request.data.pipeline && ids.version === request.data.version,
    )
  const was = before && specOf(before.data, name)
  return was && spec ? shapeDifferences(was, spec) : []
}

/** Its newest value was looked at when its dependencies had theirs, and was not current. */
function whyNotCurrent(story: RunStory, asset: AssetStory, candidate: EarlierValue): Reason {
  const run = candidate.run ?? ''
  const of = run === '' ? 'its newest value' : `the value of run ${run}`
  const decided = asset.changes.find(({ after }) => after.attempt > 0)?.fact
  if (!decided) return { fact: planFact(story), why: `unless ${of} turns out to be current` }
  const differences = codeDifferences(story, asset, run)
  if (differences.length > 0)
    return { fact: story.registered ?? decided, why: `${of} was made by other code: ${differences.join(', ')}` }
  const input = changedInput(story, asset.name, run)
  for (const dependency of asset.spec?.dependsOn ?? []) {
    const [was, is] = [hashIn(story, run, dependency), story.assets.get(dependency)?.state.hash]
    if (was === undefined || is === undefined || was === is) continue
    const asset = story.assets.get(dependency)
    const given = asset?.spec?.input ? story.request : decided
    const fact = factOf(asset?.facts ?? [], 'asset.materialized') ?? given
    return { fact, why: `${of} was made of another value of ${dependency}` }
  }
  if (input !== undefined) return { fact: story.request, why: `${of} was made from another input ${input}` }
  return { fact: decided, why: `${of} was made of other values, or by other code` }
}

/** Hash of the value of an asset, as another run made, took or was given it. */
function hashIn(story: RunStory, run: string, asset: string): string | undefined {
  const made = otherOf(story, 'asset.materialized', { run, asset })
  if (made) return made.data.hash
  const planned = otherOf(story, 'run.planned', { run })?.data.assets.find(({ name }) => name === asset)
  const given = otherOf(story, 'run.requested', { run })?.data.input?.[asset]
  return given ? hashOfValue(given) : (planned?.from?.hash ?? planned?.candidate?.hash)
}
