/**
 * Why a run, or an asset of it, is as it is: facts in, a chain of sentences out. Each sentence
 * names the fact that proves it. What no fact says is not said here.
 */
import type { FactOf } from '../../streams/facts.ts'
import { askedLinks, otherOf } from './asked.ts'
import { assetLinks, frontierOf, isIdle, presentLink, skipPath } from './asset.ts'
import { planLinks } from './planned.ts'
import { type AssetStory, factOf, lastOf, type RunStory, storyBefore, storyOf } from './story.ts'
import type { Why, WhyAbout, WhyInput, WhyLink } from './types.ts'
import { because, byWords, errorWords, linkOf, listWords, spanWords } from './words.ts'

/** Open assets whose chains stand side by side. */
const OPEN_MAX = 4

/** Undefined where the facts lack the request of the run. */
export function whyRun(input: WhyInput): Why | undefined {
  const story = storyOf(input)
  if (!story) return undefined
  const own = story.finished ? endedLinks(story, story.finished) : openLinks(story)
  const chain = merged([...askedLinks(story), ...waitLinks(story), ...adoptLinks(story), ...planLinks(story), ...own])
  return finish(story, { run: story.id }, story.status, verdictOf(story), chain)
}

/** Undefined where the run has no such asset, as far as it is planned. */
export function whyAsset(input: WhyInput, name: string): Why | undefined {
  const story = storyOf(input)
  const asset = story?.assets.get(name)
  if (!story || !asset) return undefined
  const causes = skipPath(story, asset).flatMap((one) => (one === asset ? [] : assetLinks(story, one)))
  const blocking = asset.state.status === 'waiting' ? blockingLinks(story, asset) : []
  const present = presentLink(story, asset)
  const ending = asset.state.status === 'cancelled' ? cancelLinks(story) : []
  const links = [
    ...askedLinks(story),
    ...waitLinks(story),
    ...causes,
    ...blocking,
    ...ending,
    ...assetLinks(story, asset),
  ]
  const chain = merged([...links, present])
  return finish(story, { run: story.id, asset: name }, asset.state.status, present, chain)
}

/** The names of the assets that a run makes, takes or was given, as far as it is planned. */
export function assetsOf(input: WhyInput): string[] {
  return [...(storyOf(input)?.assets.keys() ?? [])]
}

function finish(
  story: RunStory,
  about: WhyAbout,
  status: Why['status'],
  verdict: WhyLink,
  chain: readonly WhyLink[],
): Why {
  const { pipeline, target, partition } = story.request.data
  const of = { ...about, pipeline, target, ...(partition === undefined ? {} : { partition }) }
  return { of, status, verdict, chain, state: [], runs: runsOf(story, chain) }
}

/** Sentences that were said before are left out; the last one stays the last. */
function merged(links: readonly WhyLink[]): WhyLink[] {
  const said = new Map<string, WhyLink>()
  for (const link of links) {
    const key = `${link.fact.shard}/${link.fact.seq} ${link.text}`
    if (link === links.at(-1)) said.delete(key)
    if (!said.has(key)) said.set(key, link)
  }
  return [...said.values()]
}

/** While others of its key are active; and what ended that. */
function waitLinks(story: RunStory): WhyLink[] {
  const { turn } = story.input
  if (!turn) return []
  const by = 'run' in turn.ids && turn.ids.run !== story.id ? `run ${turn.ids.run} ended` : 'there was room'
  const key = JSON.stringify(story.request.data.concurrency?.key ?? '')
  return [linkOf(turn, { run: story.id }, `Its turn under concurrency key ${key} came when ${by}.`)]
}

/** The first of those that are in its way. */
function queueLinks(story: RunStory): WhyLink[] {
  const behind = story.input.queued?.behind ?? []
  const { key, limit = 1 } = story.request.data.concurrency ?? {}
  const holders = (story.input.others ?? []).filter(
    (fact): fact is FactOf<'run.requested'> => fact.name === 'run.requested' && behind.includes(fact.ids.run),
  )
  return holders.map((fact) => {
    const text = `Run ${fact.ids.run} of ${fact.data.target} has a place under concurrency key ${JSON.stringify(key ?? '')}, of which there are ${limit}; it has not ended.`
    return linkOf(fact, { run: fact.ids.run }, text)
  })
}

function adoptLinks(story: RunStory): WhyLink[] {
  const adopted = lastOf(story.facts, 'run.adopted')
  if (!adopted) return []
  const { from, version } = adopted.data
  const asked = story.facts.find(
    ({ name, seq }) => name === 'run.adopt_requested' && String(seq) === adopted.ids.request,
  )
  const by = asked ? byWords(asked) : ''
  const text = `The run was moved from version ${from} of its pipeline to ${version}${by}.`
  return [linkOf(adopted, { run: story.id }, text)]
}

/** Who or what ended a run before its work was done, and what it was doing then. */
function cancelLinks(story: RunStory): WhyLink[] {
  const about = { run: story.id }
  const abandoned = lastOf(story.facts, 'run.abandoned')
  const cancel = factOf(story.facts, 'run.cancel_requested')
  const timer = factOf(story.facts, 'run.timer_fired')
  const links: WhyLink[] = []
  if (isAbandoned(story) && abandoned) {
    const { parent, asset } = abandoned.ids
    const why = otherOf(story, 'run.cancel_requested', { run: parent })
    const text = `Run ${parent} was cancelled${because(why?.data.reason)}`
    if (why) links.push(linkOf(why, { run: parent }, `${text}${byWords(why)}.`))
    links.push(linkOf(abandoned, about, `Asset ${asset} of run ${parent} waits for the run no more.`))
  }
  if (timer) links.push(linkOf(timer, about, `The run's time limit of ${spanWords(timer.data.timeoutMs)} passed.`))
  if (cancel)
    links.push(linkOf(cancel, about, `The run was cancelled${byWords(cancel)}${because(cancel.data.reason)}.`))
  const cause = timer ?? cancel ?? abandoned
  const before = cause && links.some(({ fact }) => fact.seq === cause.seq) ? storyBefore(story, cause) : undefined
  const at = before && frontierOf(before)[0]
  const doing = before && at && story.assets.has(at.name) ? presentLink(before, at) : undefined
  return doing ? [{ ...doing, text: `Until then: ${doing.text}` }, ...links] : links
}

/** Its parent started it, and has ended. */
function isAbandoned({ facts, status, request }: RunStory): boolean {
  const isOwn = factOf(facts, 'run.cancel_requested') === undefined
  return (
    status === 'cancelled' && isOwn && request.data.parent !== undefined && lastOf(facts, 'run.abandoned') !== undefined
  )
}

function endedLinks(story: RunStory, finished: FactOf<'run.finished'>): WhyLink[] {
  const { status, target, durationMs, error } = finished.data
  const root = rootOf(story, finished)
  const links: WhyLink[] = []
  const own = status === 'succeeded' ? story.assets.get(target) : root
  if (root?.state.status === 'cancelled') links.push(...cancelLinks(story))
  if (own) links.push(...assetLinks(story, own).slice(status === 'succeeded' && story.assets.size > 1 ? 0 : 1))
  if (status !== 'succeeded') {
    if (root?.state.status !== 'cancelled') links.push(...cancelLinks(story))
    const goal = story.assets.get(target)
    if (goal && goal !== root) links.push(...skipPath(story, goal).map((asset) => presentLink(story, asset)))
  }
  const why = error && !root ? `: ${errorWords(error)}` : ''
  const text = `Run ${story.id} ended as ${status} after ${spanWords(durationMs)}${why}.`
  return [...links, linkOf(finished, { run: story.id }, text)]
}

/** The asset whose end is the run's. */
function rootOf(story: RunStory, { data }: FactOf<'run.finished'>): AssetStory | undefined {
  if (data.asset !== undefined) return story.assets.get(data.asset)
  if (factOf(story.facts, 'run.timer_fired') || factOf(story.facts, 'run.cancel_requested')) return undefined
  if (isAbandoned(story)) return undefined
  const target = story.assets.get(data.target)
  const path = target ? skipPath(story, target) : []
  return path[0]?.state.status === 'failed' || path[0]?.state.status === 'cancelled' ? path[0] : undefined
}

function openLinks(story: RunStory): WhyLink[] {
  const [first, ...others] = frontierOf(story).slice(0, OPEN_MAX)
  const links = [...queueLinks(story), ...(story.status === 'queued' ? [] : cancelLinks(story))]
  // What the verdict is about comes last: it is the present state.
  for (const asset of [...others.toReversed(), ...(first ? [first] : [])])
    links.push(...assetLinks(story, asset).slice(1))
  const verdict = verdictOf(story)
  const isSaid = links.at(-1)?.fact.seq === verdict.fact.seq && links.at(-1)?.fact.shard === verdict.fact.shard
  return isSaid ? links : [...links, verdict]
}

/** Of an asset that waits: what holds up the first of its dependencies. */
function blockingLinks(story: RunStory, asset: AssetStory): WhyLink[] {
  const needed = new Set<string>()
  const visit = (name: string): void => {
    if (needed.has(name)) return
    needed.add(name)
    for (const dependency of story.assets.get(name)?.spec?.dependsOn ?? []) visit(dependency)
  }
  visit(asset.name)
  const holding = frontierOf(story).find(({ name }) => needed.has(name))
  return holding ? assetLinks(story, holding) : []
}

function verdictOf(story: RunStory): WhyLink {
  const about = { run: story.id }
  const run = `Run ${story.id}`
  if (story.finished) return endVerdict(story, story.finished)
  if (story.status === 'queued') {
    const [holder] = queueLinks(story)
    if (!holder) return linkOf(story.request, about, `${run} waits for its turn under its concurrency key.`)
    return { ...holder, text: `${run} waits for its turn. ${holder.text}` }
  }
  const cancel = factOf(story.facts, 'run.cancel_requested') ?? factOf(story.facts, 'run.timer_fired')
  if (cancel) return linkOf(cancel, about, `${run} is being ended${cancelWords(cancel)}.`)
  const frontier = frontierOf(story)
  const [first] = frontier
  if (first) {
    const present = presentLink(story, first)
    const more = frontier.length > 1 ? ` Open beside it: ${listWords(frontier.slice(1).map(({ name }) => name))}.` : ''
    return {
      ...present,
      text: `${run} ${isIdle(first) ? 'waits' : first.state.status === 'queued' ? 'is open' : 'runs'}. ${present.text}${more}`,
    }
  }
  if (story.status === 'requested') return linkOf(story.request, about, `${run} was asked for, and is not planned yet.`)
  const last = story.facts.at(-1) ?? story.request
  return linkOf(last, about, `All of run ${story.id} has ended; the fact that says so is on its way.`)
}

function cancelWords(fact: FactOf<'run.cancel_requested' | 'run.timer_fired'>): string {
  return fact.name === 'run.timer_fired' ? ': its time limit passed' : because(fact.data.reason)
}

function endVerdict(story: RunStory, finished: FactOf<'run.finished'>): WhyLink {
  const { status, target, durationMs, error, asset } = finished.data
  const about = { run: story.id }
  if (status === 'succeeded')
    return linkOf(finished, about, `Run ${story.id} succeeded: ${target} has its value after ${spanWords(durationMs)}.`)
  const root = rootOf(story, finished)
  const cancel = factOf(story.facts, 'run.cancel_requested')
  const cause = root?.facts.find(({ name }) => name === 'asset.failed' || name === 'asset.cancelled')
  const why =
    error !== undefined
      ? `${asset === undefined ? ': ' : `, because ${asset} failed: `}${errorWords(error)}`
      : cancel
        ? because(cancel.data.reason)
        : cause?.name === 'asset.cancelled'
          ? `, because ${root?.name} was cancelled${because(cause.data.reason)}`
          : isAbandoned(story)
            ? ', because nothing waits for it any more'
            : ''
  return linkOf(finished, about, `Run ${story.id} ${status === 'failed' ? 'failed' : 'was cancelled'}${why}.`)
}

/** Other runs that the chain leads to. */
function runsOf(story: RunStory, chain: readonly WhyLink[]): string[] {
  const { parent, retry, redrive, retryOf } = story.request.data
  const runs = new Set<string | undefined>([parent?.run, retry?.run, redrive?.run, retryOf])
  const named = new Set(chain.map(({ about }) => about.asset))
  for (const link of chain) runs.add(link.about.run)
  for (const asset of story.assets.values()) {
    if (asset.state.from?.run !== undefined) runs.add(asset.state.from.run)
    for (const fact of asset.facts)
      if (fact.name === 'child.requested' && named.has(asset.name)) runs.add(fact.data.child)
  }
  for (const link of chain) if (link.about.run === story.id) for (const run of namedIn(link)) runs.add(run)
  runs.delete(story.id)
  return [...runs].filter((run) => run !== undefined)
}

const OTHER_RUN = /\brun (\d{1,4}-[A-Za-z0-9-]{1,80})\b/g

/** The run that took its place, or was in its way: only the reason says which. */
function namedIn({ fact, text }: WhyLink): string[] {
  if (fact.kind !== 'run.cancel_requested' && fact.kind !== 'run.finished') return []
  return [...text.matchAll(OTHER_RUN)].flatMap(([, run]) => run ?? [])
}
