/** When what of a run ran: spans for a picture, from its facts. */
import type { Fact, FactName } from '../../../streams/facts.ts'
import { parseRunId } from '../../../streams/ids.ts'
import { pathsOfRun, runFacts } from '../../log/run-facts.ts'
import type { RunDeps } from '../run-view.ts'

/** A time in which something of a run ran or waited. */
export interface Span {
  /** `attempt`: code of an asset ran. `scatter`: its instances. `gate`: it waited at one. */
  readonly kind: 'attempt' | 'scatter' | 'gate'
  readonly asset: string
  /** Of an attempt: its number, and which code. Of a gate: its id. */
  readonly attempt: number | undefined
  readonly phase: string | undefined
  readonly gate: string | undefined
  readonly from: Date
  /** Undefined: it goes on. */
  readonly to: Date | undefined
  /** How it ended: `materialized`, `error`, `signaled`, … */
  readonly outcome: string | undefined
  readonly worker: string | undefined
}

const SPANS_MAX = 2000
/** Spans behind those that are shown are dropped: a scatter may have a million gates. */
const HELD_MAX = 2 * SPANS_MAX
const WANTED: ReadonlySet<FactName> = new Set([
  'scatter.started',
  'scatter.closed',
  'gate.created',
  'child.requested',
  'gate.resolved',
])

/** In the order in which they began, at most 2,000. */
export async function timelineOf(deps: RunDeps, runId: string): Promise<Span[]> {
  await deps.found()
  const spans = new Spans()
  for await (const fact of factsOf(deps, runId)) spans.take(fact)
  return spans.all().slice(0, SPANS_MAX)
}

async function* factsOf(deps: RunDeps, runId: string): AsyncGenerator<Fact> {
  const { id: run, shard } = parseRunId(runId)
  if (shard >= deps.shards) return
  if (deps.docs.past) yield* deps.docs.factsOfRun(run)
  else
    yield* runFacts(deps, run, {
      paths: pathsOfRun(run, (name) => /^(asset|attempt)\./.test(name) || WANTED.has(name)),
    })
}

const NONE = {
  attempt: undefined,
  phase: undefined,
  gate: undefined,
  to: undefined,
  outcome: undefined,
  worker: undefined,
}

/** Facts in order become spans: what began waits for what ended. */
class Spans {
  #done: Span[] = []
  readonly #open = new Map<string, Span>()

  all(): Span[] {
    return [...this.#done, ...this.#open.values()].toSorted((a, b) => a.from.getTime() - b.from.getTime())
  }

  take(fact: Fact): void {
    const at = new Date(fact.timeMs)
    switch (fact.name) {
      case 'asset.started': {
        const { phase, worker } = fact.data
        const attempt = Number(fact.ids.attempt)
        this.#begin(`a ${fact.ids.asset}`, {
          ...NONE,
          kind: 'attempt',
          asset: fact.ids.asset,
          attempt,
          phase,
          worker,
          from: at,
        })
        return
      }
      case 'attempt.ended': {
        const { phase, worker, outcome, durationMs } = fact.data
        const attempt = Number(fact.ids.attempt)
        this.#attemptEnded(fact.ids.asset, at, { attempt, phase, worker, outcome, durationMs })
        return
      }
      case 'asset.materialized': {
        const { attempt, worker, durationMs } = fact.data
        this.#attemptEnded(fact.ids.asset, at, {
          attempt,
          phase: undefined,
          worker,
          outcome: 'materialized',
          durationMs,
        })
        return
      }
      case 'asset.suspended': {
        const attempt = Number(fact.ids.attempt)
        this.#attemptEnded(fact.ids.asset, at, {
          attempt,
          phase: undefined,
          worker: fact.data.worker,
          outcome: 'suspended',
          durationMs: undefined,
        })
        return
      }
      case 'asset.failed':
      case 'asset.cancelled':
        this.#end(`a ${fact.ids.asset}`, at, fact.name.slice('asset.'.length))
        return
      case 'scatter.started':
        // The scatter function may begin again: the first one counts.
        if (!this.#open.has(`s ${fact.ids.asset}`))
          this.#begin(`s ${fact.ids.asset}`, { ...NONE, kind: 'scatter', asset: fact.ids.asset, from: at })
        return
      case 'scatter.closed':
        this.#end(`s ${fact.ids.asset}`, at, fact.data.status)
        return
      case 'gate.created':
      case 'child.requested': {
        const { run, asset, gate } = fact.ids
        this.#begin(`g ${asset} ${gate}`, { ...NONE, kind: 'gate', asset, gate: `${run}.${asset}.${gate}`, from: at })
        return
      }
      case 'gate.resolved':
        this.#end(`g ${fact.ids.asset} ${fact.ids.gate}`, at, fact.data.outcome)
        return
      default:
    }
  }

  #begin(key: string, span: Span): void {
    this.#open.set(key, span)
    this.#trim()
  }

  /** Later facts bring no span before these: what began is noted when it began. */
  #trim(): void {
    if (this.#done.length + this.#open.size < 2 * HELD_MAX) return
    const kept = new Set(this.all().slice(0, HELD_MAX))
    this.#done = this.#done.filter((span) => kept.has(span))
    for (const [key, span] of this.#open) if (!kept.has(span)) this.#open.delete(key)
  }

  #end(key: string, to: Date, outcome: string): void {
    const span = this.#open.get(key)
    if (span) this.#done.push({ ...span, to, outcome })
    this.#open.delete(key)
  }

  /** Short attempts have no beginning on the log: it follows from how long they took. */
  #attemptEnded(
    asset: string,
    to: Date,
    ended: {
      readonly attempt: number
      readonly phase: string | undefined
      readonly worker: string
      readonly outcome: string
      readonly durationMs: number | undefined
    },
  ): void {
    const begun = this.#open.get(`a ${asset}`)
    this.#open.delete(`a ${asset}`)
    const { durationMs = 0, phase, ...rest } = ended
    const isBegun = begun?.attempt === rest.attempt
    const from = isBegun ? begun.from : new Date(to.getTime() - durationMs)
    this.#done.push({
      ...NONE,
      kind: 'attempt',
      asset,
      from,
      to,
      ...rest,
      phase: phase ?? (isBegun ? begun.phase : undefined),
    })
    this.#trim()
  }
}
