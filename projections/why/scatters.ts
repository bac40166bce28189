/** What became of a scatter. */
import type { Fact, FactOf } from '../../streams/facts.ts'
import type { ErrorInfo } from '../../streams/schemas.ts'
import { type AssetStory, factOf, factsOf, lastOf, type RunStory } from './story.ts'
import type { FailedAt, WhyLink } from './types.ts'
import { because, byWords, countWords, errorWords, linkOf, numberWords, spanWords } from './words.ts'

const GROUPS_MAX = 3

export function isPaused(asset: AssetStory): FactOf<'scatter.paused'> | undefined {
  const hold = asset.facts.findLast(({ name }) => name === 'scatter.paused' || name === 'scatter.resumed')
  return hold?.name === 'scatter.paused' && !factOf(asset.facts, 'scatter.closed') ? hold : undefined
}

/** In the order of the log, but failures of instances stand before the end that they caused. */
export function scatterLinks(story: RunStory, asset: AssetStory): WhyLink[] {
  const about = { run: story.id, asset: asset.name }
  const say = (fact: Fact, text: string): WhyLink => linkOf(fact, about, text)
  const links: WhyLink[] = []
  const sized = factOf(asset.facts, 'scatter.sized')
  const started = factOf(asset.facts, 'scatter.started')
  if (sized) links.push(say(sized, `${asset.name} scatters to ${countWords(sized.data.total, 'instance')}.`))
  else if (started)
    links.push(say(started, `The scatter function of ${asset.name} gives keys; not all of them are there yet.`))
  const lost = factsOf(asset.facts, 'lease.lost')
  const last = lost.at(-1)
  if (last)
    links.push(
      say(last, `${countWords(lost.length, 'lease')} of it lost a worker; the instances run again, one by one.`),
    )
  const hold = lastOf(asset.facts, 'scatter.paused')
  const resumed = lastOf(asset.facts, 'scatter.resumed')
  if (hold) links.push(say(hold, `${asset.name} was paused${byWords(hold)}${because(hold.data.reason)}.`))
  if (hold && resumed && resumed.seq > hold.seq) links.push(say(resumed, `It was resumed${byWords(resumed)}.`))
  links.push(...failureLinks(story, asset))
  const timer = factOf(asset.facts, 'scatter.timer_fired')
  if (timer)
    links.push(say(timer, `Its totalTimeout of ${spanWords(timer.data.timeoutMs)} passed before all instances ended.`))
  const cancelled = factOf(asset.facts, 'scatter.cancel_requested')
  if (cancelled)
    links.push(say(cancelled, `The scatter was cancelled${byWords(cancelled)}${because(cancelled.data.reason)}.`))
  const early = factOf(asset.facts, 'scatter.ended_early')
  const closed = factOf(asset.facts, 'scatter.closed')
  if (closed) links.push(say(closed, closedWords(asset, closed)))
  else if (early) {
    const why = early.data.error ? `: ${errorWords(early.data.error)}` : ''
    links.push(say(early, `The scatter ends early, as ${early.data.status}${why}.`))
  }
  return links
}

function closedWords(asset: AssetStory, { data }: FactOf<'scatter.closed'>): string {
  const { status, total, succeeded, failed, error } = data
  const of = total === undefined ? '' : ` of ${numberWords(total)}`
  const counts = `${numberWords(succeeded)}${of} instances succeeded, ${numberWords(failed)} failed`
  const passed = error?.code === 'threshold_passed' ? ', which its failureThreshold does not allow' : ''
  const why = error ? `: ${errorWords(error)}` : ''
  return `The scatter of ${asset.name} closed as ${status}; ${counts}${passed}${why}.`
}

interface Group {
  readonly fact: Fact
  readonly error: ErrorInfo
  readonly first: number
  count: number
}

/** Failed instances by their error, the commonest first. */
function failureLinks(story: RunStory, asset: AssetStory): WhyLink[] {
  const failed = story.input.failed?.get(asset.name)
  const found = failed ? errorsOf(asset, failed) : lastErrorsOf(asset)
  const groups = new Map<string, Group>()
  for (const { index, error, fact } of found.toSorted((a, b) => a.index - b.index)) {
    const key = errorWords(error)
    const group = groups.get(key) ?? { fact, error, first: index, count: 0 }
    group.count += 1
    groups.set(key, group)
  }
  const sorted = [...groups.values()].toSorted((a, b) => b.count - a.count || a.first - b.first)
  return sorted.slice(0, GROUPS_MAX).map(({ fact, error, first, count }) => {
    const which =
      count === 1 ? `Instance ${first} of ${asset.name}` : `${numberWords(count)} instances of ${asset.name}`
    const from = count === 1 ? '' : `, the first of them instance ${first}`
    return linkOf(fact, { run: story.id, asset: asset.name }, `${which} failed${from}: ${errorWords(error)}.`)
  })
}

interface Found {
  readonly index: number
  readonly error: ErrorInfo
  readonly fact: Fact
}

/** Those that the fold counted. */
function errorsOf(asset: AssetStory, failed: readonly FailedAt[]): Found[] {
  const bySeq = new Map(factsOf(asset.facts, 'scatter.outcomes').map((fact) => [fact.seq, fact]))
  return failed.flatMap(({ index, seq }) => {
    const fact = bySeq.get(seq)
    const error = fact?.data.errors?.find(([k]) => fact.data.at[k] === index)?.[1].error
    return fact && error ? [{ index, error, fact }] : []
  })
}

/** Where that is not known: those whose last outcome is an error. */
function lastErrorsOf(asset: AssetStory): Found[] {
  const last = new Map<number, Found | undefined>()
  for (const fact of factsOf(asset.facts, 'scatter.outcomes')) {
    const failed = (fact.data.errors ?? []).filter(([, { outcome }]) => outcome !== 'returned')
    const errors = new Map(failed.map(([k, { error }]) => [k, error]))
    for (const [k, index] of fact.data.at.entries()) {
      const error = errors.get(k)
      last.set(index, error && { index, error, fact })
    }
  }
  return [...last.values()].filter((found) => found !== undefined)
}
