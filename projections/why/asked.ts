/** Why there is a run at all: who or what asked for it. */
import type { Fact, FactName, FactOf } from '../../streams/facts.ts'
import type { HookOf } from '../../streams/hook-schemas.ts'
import { factsOf, type RunStory } from './story.ts'
import type { WhyLink } from './types.ts'
import { byWords, countWords, errorWords, linkOf, numberWords, timeWords } from './words.ts'

/** What came before the request, and the request. */
export function askedLinks(story: RunStory): WhyLink[] {
  return [...beforeLinks(story), requestLink(story)]
}

export function requestLink({ request, id }: RunStory): WhyLink {
  const { data } = request
  const partition = data.partition === undefined ? '' : ` in partition ${data.partition}`
  const key = data.key === undefined ? '' : `, under key ${JSON.stringify(data.key)}`
  return linkOf(request, { run: id }, `${askerWords(request)}${partition}${key}${byWords(request)}.`)
}

/** `Schedule nightly asked for report: …` */
function askerWords({ data }: FactOf<'run.requested'>): string {
  const { target, pipeline, schedule, sensor, hook, event, trigger, redrive, retry, retryOf, parent } = data
  const what = `${pipeline}/${target}`
  if (schedule) {
    const how = schedule.by === 'trigger' ? ', started by hand' : schedule.by === 'backfill' ? ', a backfill' : ''
    const purpose = schedule.evaluates ? `wants its code evaluated` : `asked for ${what}`
    return `Schedule ${schedule.name} ${purpose}: its occurrence of ${timeWords(schedule.atMs)}${how}`
  }
  if (sensor)
    return sensor.evaluates
      ? `Sensor ${sensor.name} was due: evaluation ${sensor.evaluation} of its code`
      : `Sensor ${sensor.name} asked for ${what}, in its evaluation ${sensor.evaluation}`
  if (hook) return `Hook ${hook.on} of pipeline ${pipeline} was due, for ${hookWords(hook)}`
  if (event) {
    const more = event.messages === undefined || event.messages < 2 ? '' : `, and ${event.messages - 1} more`
    return `Subscription ${event.subscription} asked for ${what}: message ${event.seq} of stream ${event.stream}${idWords(event)}${more}`
  }
  if (trigger) return `A trigger asked for ${what}: message ${trigger.seq} of the stream of triggers${idWords(trigger)}`
  if (parent) return `Asset ${parent.asset} of run ${parent.run} asked for ${what} by ctx.run, at gate ${parent.gate}`
  if (redrive)
    return `Somebody asked for a redrive of scatter ${redrive.run}.${redrive.asset}, to run again what did not succeed of its ${countWords(redrive.total, 'instance')}`
  if (retry) {
    const from = retry.from === undefined ? '' : `, from ${retry.from} on`
    return `Somebody asked to retry run ${retry.run}${from}, for ${what}`
  }
  const again = retryOf === undefined ? '' : `, again after run ${retryOf}`
  return `A client asked for ${what}${again}`
}

function hookWords({ run, gate }: HookOf): string {
  return gate === undefined ? `run ${run}` : `gate ${gate}`
}

function idWords({ msgId }: { readonly msgId?: string | undefined }): string {
  return msgId === undefined ? '' : ` (Nats-Msg-Id ${msgId})`
}

/** Facts that led to the request, as far as they could be read. */
function beforeLinks(story: RunStory): WhyLink[] {
  const { redrive, retry, retryOf, parent } = story.request.data
  const links: WhyLink[] = []
  const earlier = retry?.run ?? redrive?.run ?? retryOf
  const ended = earlier === undefined ? undefined : otherOf(story, 'run.finished', { run: earlier })
  if (ended) links.push(endedLink(ended))
  const scatter = redrive && otherOf(story, 'scatter.closed', { run: redrive.run, asset: redrive.asset })
  if (scatter) {
    const { status, failed, succeeded, total } = scatter.data
    const all = total === undefined ? 'an unknown number of' : numberWords(total)
    const text = `Scatter ${scatter.ids.run}.${scatter.ids.asset} closed as ${status}: ${numberWords(succeeded)} of ${all} instances succeeded, ${numberWords(failed)} failed.`
    links.push(linkOf(scatter, { run: scatter.ids.run, asset: scatter.ids.asset }, text))
  }
  const child = parent && otherOf(story, 'child.requested', parent)
  if (child) {
    const text = `Asset ${child.ids.asset} of run ${child.ids.run} called ctx.run, and waits for run ${child.data.child}.`
    links.push(linkOf(child, { run: child.ids.run, asset: child.ids.asset, gate: child.ids.gate }, text))
  }
  return [...links, ...outsideLinks(story)]
}

function outsideLinks(story: RunStory): WhyLink[] {
  const { schedule, trigger } = story.request.data
  const links: WhyLink[] = []
  const about = { run: story.id }
  const received = trigger && otherOf(story, 'trigger.received', {})
  if (received) links.push(linkOf(received, about, `A message came on trigger.${received.data.subject}.`))
  const fired = schedule && otherOf(story, 'schedule.fired', {})
  if (fired)
    links.push(linkOf(fired, about, `Schedule ${fired.ids.schedule} was due at ${timeWords(fired.data.atMs)}.`))
  return links
}

/** How another run ended. */
export function endedLink(ended: FactOf<'run.finished'>): WhyLink {
  const { status, asset, error, target } = ended.data
  const at = asset === undefined ? '' : ` at ${asset}`
  const why = error ? `: ${errorWords(error)}` : ''
  return linkOf(ended, { run: ended.ids.run }, `Run ${ended.ids.run} of ${target} ended as ${status}${at}${why}.`)
}

/** A fact of another run, with these ids. */
export function otherOf<N extends FactName>(
  story: RunStory,
  name: N,
  ids: Readonly<Record<string, string>>,
): FactOf<N> | undefined {
  const wanted = Object.entries(ids)
  return factsOf(story.input.others ?? [], name).find((fact: Fact) =>
    wanted.every(([id, value]) => Reflect.get(fact.ids, id) === value),
  )
}
