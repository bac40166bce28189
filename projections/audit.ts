/**
 * What people and outside systems did, as facts say it: `flow.audit`. Pure: one fact gives one
 * entry, or none.
 */
import { isBy } from '../streams/by.ts'
import type { Fact, FactName } from '../streams/facts.ts'

/** Facts that somebody outside may have caused. Of some of them the engine decides others. */
export const AUDITED = [
  'pipeline.registered',
  'run.requested',
  'run.cancel_requested',
  'run.adopt_requested',
  'gate.extended',
  'gate.resolved',
  'scatter.paused',
  'scatter.resumed',
  'scatter.cancel_requested',
  'schedule.paused',
  'schedule.resumed',
  'schedule.triggered',
  'schedule.backfill_requested',
  'sensor.paused',
  'sensor.resumed',
  'sensor.triggered',
  'event.retried',
  'event.refused',
  'trigger.refused',
] as const satisfies readonly FactName[]
/** The kinds of facts that `flow.audit` lists. */
export type AuditKind = (typeof AUDITED)[number]
type AuditFact = Extract<Fact, { name: AuditKind }>

/** Who did it where the fact does not say: it was written by an earlier version. */
const UNKNOWN = 'unknown'

/** One thing that somebody outside did. */
export interface AuditEntry {
  /** The server's clock when the fact was stored. */
  readonly at: Date
  readonly shard: number
  readonly seq: number
  /** The fact, such as `run.cancel_requested`. */
  readonly kind: AuditKind
  /** One or more `kind:name` with spaces between; `unknown` where an earlier version wrote it. */
  readonly by: string
  /** On what: `orders/invoice`, a run, a scatter, a gate, a schedule. */
  readonly what: string
  /** The run that it is about, or that it started. */
  readonly run?: string
  /** The reason that was given, and what else the fact says in short. */
  readonly detail?: string
}

export function isAudited(name: FactName): name is AuditKind {
  return (AUDITED as readonly FactName[]).includes(name)
}

/** Undefined for what the engine decided, or what nobody outside did. */
export function auditOf(fact: Fact): AuditEntry | undefined {
  if (!isAuditFact(fact)) return undefined
  const by = whoDid(fact)
  if (by === undefined) return undefined
  const detail = detailOf(fact)
  return {
    at: new Date(fact.timeMs),
    shard: fact.shard,
    seq: fact.seq,
    kind: fact.name,
    by,
    what: whatOf(fact),
    ...('run' in fact.ids ? { run: fact.ids.run } : {}),
    ...(detail === undefined ? {} : { detail }),
  }
}

function isAuditFact(fact: Fact): fact is AuditFact {
  return isAudited(fact.name)
}

function whoDid(fact: AuditFact): string | undefined {
  switch (fact.name) {
    case 'run.requested': {
      const { by, event, trigger, schedule, sensor, hook, parent, retry, redrive, pipeline } = fact.data
      if (by !== undefined) return by
      if (parent || schedule || sensor || hook) return undefined
      // A retry names the message that its first run was for: nobody sent that again.
      if (retry || redrive) return UNKNOWN
      return event ? `subscription:${pipeline}/${event.subscription}` : trigger ? 'trigger' : UNKNOWN
    }
    case 'run.cancel_requested':
      // The engine cancels too, for limits and schedules.
      return fact.data.by
    case 'gate.resolved': {
      const { outcome, by, source, child } = fact.data
      if (outcome === 'cancelled') return by
      if (outcome !== 'signaled' || child) return undefined
      const from = source === undefined ? undefined : `gate:${source.replaceAll(/\s+/g, '/')}`
      return from === undefined ? (by ?? UNKNOWN) : by === undefined ? from : `${from} ${by}`
    }
    case 'gate.extended':
      return fact.data.why === 'request' ? (fact.data.by ?? UNKNOWN) : undefined
    case 'event.refused':
      return `subscription:${fact.data.pipeline}/${fact.data.subscription}`
    case 'trigger.refused':
      return fact.data.by ?? 'trigger'
    default:
      return fact.data.by ?? UNKNOWN
  }
}

function whatOf(fact: AuditFact): string {
  switch (fact.name) {
    case 'run.requested': {
      const { pipeline, target, partition } = fact.data
      return `${pipeline}/${target}${partition === undefined ? '' : `@${partition}`}`
    }
    case 'run.cancel_requested':
    case 'run.adopt_requested':
      return fact.ids.run
    case 'gate.extended':
    case 'gate.resolved':
      return `${fact.ids.run}.${fact.ids.asset}.${fact.ids.gate}`
    case 'scatter.paused':
    case 'scatter.resumed':
    case 'scatter.cancel_requested':
      return `${fact.ids.run}.${fact.ids.asset}`
    case 'schedule.paused':
    case 'schedule.resumed':
    case 'schedule.triggered':
    case 'schedule.backfill_requested':
      return `${fact.ids.pipeline}/${fact.ids.schedule}`
    case 'sensor.paused':
    case 'sensor.resumed':
    case 'sensor.triggered':
      return `${fact.ids.pipeline}/${fact.ids.sensor}`
    case 'event.retried':
    case 'event.refused':
      return `${fact.ids.pipeline}/${fact.ids.subscription}`
    case 'trigger.refused':
      return fact.data.pipeline === undefined ? fact.data.asset : `${fact.data.pipeline}/${fact.data.asset}`
    case 'pipeline.registered':
      return fact.ids.pipeline
    default:
      return fact satisfies never
  }
}

function detailOf(fact: AuditFact): string | undefined {
  switch (fact.name) {
    case 'run.requested': {
      const { retry, redrive, retryOf, key } = fact.data
      if (redrive) return `redrive of ${redrive.run}.${redrive.asset}`
      if (retry) return `retry of ${retry.run}${retry.from === undefined ? '' : ` from ${retry.from}`}`
      if (retryOf !== undefined) return `again after ${retryOf}`
      return key === undefined ? undefined : `key ${key}`
    }
    case 'gate.resolved':
      return fact.data.reason === undefined ? fact.data.outcome : `${fact.data.outcome}: ${fact.data.reason}`
    case 'gate.extended':
      return `until ${new Date(fact.data.deadlineMs).toISOString()}`
    case 'run.adopt_requested':
      return `version ${fact.data.version}`
    case 'pipeline.registered':
      return `version ${fact.data.version}`
    case 'schedule.backfill_requested':
      return `${fact.data.at.length} occurrences`
    case 'event.retried':
    case 'event.refused':
      return `message ${fact.ids.seq} of ${fact.data.stream}${fact.name === 'event.refused' ? `: ${fact.data.reason}` : ''}`
    default:
      return 'reason' in fact.data ? fact.data.reason : undefined
  }
}

/** Where an entry stands among all others. */
export type AuditPlace = Pick<AuditEntry, 'at' | 'shard' | 'seq'>

/** As text, for the next page. */
export function placeText({ at, shard, seq }: AuditPlace): string {
  return `${at.toISOString()}/${shard}/${seq}`
}

/** Undefined: it is not the text of a place. */
export function parsePlace(text: string): AuditPlace | undefined {
  const [, time = '', shard, seq] = /^([^/]+)\/(\d+)\/(\d+)$/.exec(text) ?? []
  const at = new Date(time)
  return Number.isFinite(at.getTime()) ? { at, shard: Number(shard), seq: Number(seq) } : undefined
}

export interface AuditWanted {
  readonly by?: string | undefined
  /** Names of facts, or what they begin with: `run`. */
  readonly kinds?: readonly string[] | undefined
  readonly sinceMs: number
  /** Up to, and without it. */
  readonly untilMs: number
  /** Only what comes behind this one. */
  readonly after?: AuditPlace | undefined
}

export function isWantedKind(name: FactName, kinds: readonly string[] | undefined): boolean {
  return isAudited(name) && (!kinds || kinds.some((kind) => name === kind || name.startsWith(`${kind}.`)))
}

export function isWanted(entry: AuditEntry, { by, kinds, sinceMs, untilMs, after }: AuditWanted): boolean {
  const timeMs = entry.at.getTime()
  return (
    timeMs >= sinceMs &&
    timeMs < untilMs &&
    isWantedKind(entry.kind, kinds) &&
    (by === undefined || isBy(entry.by, by)) &&
    (after === undefined || newerFirst(after, entry) < 0)
  )
}

/** Keeps the newest entries, each once: a fact may stand on the log and in the history. */
export class Newest {
  readonly #limit: number
  #kept: AuditEntry[] = []

  constructor(limit: number) {
    this.#limit = limit
  }

  add(entry: AuditEntry): void {
    this.#kept.push(entry)
    if (this.#kept.length >= 2 * this.#limit + 1000) this.#kept = this.list()
  }

  /** Newest first. */
  list(): AuditEntry[] {
    const once = new Map(this.#kept.map((entry) => [`${entry.shard}.${entry.seq}`, entry]))
    return [...once.values()].sort(newerFirst).slice(0, this.#limit)
  }

  /** When it is full: what is older than this time cannot get in any more. */
  get floorMs(): number {
    const kept = this.#kept.length < this.#limit ? [] : this.list()
    return kept.length < this.#limit ? Number.NEGATIVE_INFINITY : (kept.at(-1)?.at.getTime() ?? 0)
  }
}

function newerFirst(a: AuditPlace, b: AuditPlace): number {
  return b.at.getTime() - a.at.getTime() || a.shard - b.shard || b.seq - a.seq
}
