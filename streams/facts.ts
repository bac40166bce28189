/**
 * Facts: what happened, past tense, immutable. This table is the whole vocabulary of the log: name,
 * subject, format, version, schema.
 *
 * Subject of a fact: `<ns>.log.<shard>.` and its path with the ids put in. A path with `end` in it
 * ends an entity. Such a fact is appended only if no message stands under `<…>.end.*` yet (see
 * places.ts). So an entity ends once, and the server decides how.
 */
import type { z } from 'zod'
import { CONTENT_TYPE, decode, encode } from './codec.ts'
import { FlowStoneError } from './errors.ts'
import * as e from './event-schemas.ts'
import type { FactDefinition } from './fact-definition.ts'
import * as g from './gate-schemas.ts'
import * as h from './hook-schemas.ts'
import { type AssetName, isRunId, type RunId } from './ids.ts'
import { PathTemplate } from './path-template.ts'
import * as r from './run-schemas.ts'
import * as sc from './scatter-schemas.ts'
import * as c from './schedule-schemas.ts'
import * as s from './schemas.ts'

export const FACTS = {
  'pipeline.registered': {
    path: 'pipeline.:pipeline.:version.registered',
    format: 'json',
    version: 1,
    schema: s.pipelineRegistered,
  },
  'run.requested': { path: 'run.:run.requested', format: 'json', version: 1, schema: r.runRequested },
  'run.planned': { path: 'run.:run.planned', format: 'json', version: 1, schema: r.runPlanned },
  'run.cancel_requested': {
    path: 'run.:run.cancel_requested',
    format: 'json',
    version: 1,
    schema: r.runCancelRequested,
  },
  'run.timer_fired': { path: 'run.:run.timer_fired', format: 'json', version: 1, schema: r.runTimerFired },
  'run.late': { path: 'run.:run.late.timer_fired', format: 'json', version: 1, schema: h.runLate },
  'run.adopt_requested': { path: 'run.:run.adopt_requested', format: 'json', version: 1, schema: r.runAdoptRequested },
  'run.adopted': { path: 'run.:run.adopted.:request', format: 'json', version: 1, schema: r.runAdopted },
  'run.adopt_refused': {
    path: 'run.:run.adopt_refused.:request',
    format: 'json',
    version: 1,
    schema: r.runAdoptRefused,
  },
  'run.awaited': { path: 'run.:run.awaited.:parent.:asset.:gate', format: 'json', version: 1, schema: r.runAwaited },
  'run.abandoned': {
    path: 'run.:run.abandoned.:parent.:asset.:gate',
    format: 'json',
    version: 1,
    schema: r.runAbandoned,
  },
  'run.finished': { path: 'run.:run.finished', format: 'json', version: 1, schema: r.runFinished },
  'asset.started': {
    path: 'asset.:pipeline.:asset.:run.started.:attempt',
    format: 'json',
    version: 1,
    schema: r.assetStarted,
  },
  'attempt.ended': {
    path: 'asset.:pipeline.:asset.:run.attempt_ended.:attempt',
    format: 'json',
    version: 1,
    schema: r.attemptEnded,
  },
  'asset.materialized': {
    path: 'asset.:pipeline.:asset.:run.end.materialized',
    format: 'json',
    version: 1,
    schema: r.assetMaterialized,
  },
  'asset.failed': { path: 'asset.:pipeline.:asset.:run.end.failed', format: 'json', version: 1, schema: r.assetFailed },
  'asset.skipped': {
    path: 'asset.:pipeline.:asset.:run.end.skipped',
    format: 'json',
    version: 1,
    schema: r.assetSkipped,
  },
  'asset.cancelled': {
    path: 'asset.:pipeline.:asset.:run.end.cancelled',
    format: 'json',
    version: 1,
    schema: r.assetCancelled,
  },
  'asset.suspended': {
    path: 'asset.:pipeline.:asset.:run.suspended.:attempt',
    format: 'json',
    version: 1,
    schema: r.assetSuspended,
  },
  'gate.created': { path: 'gate.:run.:asset.:gate.created', format: 'json', version: 1, schema: g.gateCreated },
  'child.requested': {
    path: 'gate.:run.:asset.:gate.child_requested',
    format: 'json',
    version: 1,
    schema: g.childRequested,
  },
  'gate.timer_fired': {
    path: 'gate.:run.:asset.:gate.timer_fired',
    format: 'json',
    version: 1,
    schema: g.gateTimerFired,
  },
  'gate.extended': {
    path: 'gate.:run.:asset.:gate.deadline.:n.extended',
    format: 'json',
    version: 1,
    schema: g.gateExtended,
  },
  'gate.deadline_closed': {
    path: 'gate.:run.:asset.:gate.deadline.:n.closed',
    format: 'json',
    version: 1,
    schema: g.gateDeadlineClosed,
  },
  'gate.resolved': { path: 'gate.:run.:asset.:gate.resolved', format: 'json', version: 1, schema: g.gateResolved },
  'gate.correlated': { path: 'correlation.:hash.correlated', format: 'json', version: 1, schema: g.gateCorrelated },
  'scatter.started': { path: 'scatter.:run.:asset.started', format: 'json', version: 1, schema: sc.scatterStarted },
  'scatter.items': {
    path: 'scatter.:run.:asset.items.:offset',
    format: 'msgpack',
    version: 1,
    schema: sc.scatterItems,
  },
  'scatter.sized': { path: 'scatter.:run.:asset.sized', format: 'json', version: 1, schema: sc.scatterSized },
  'scatter.outcomes': {
    path: 'scatter.:run.:asset.outcomes',
    format: 'msgpack',
    version: 1,
    schema: sc.scatterOutcomes,
    quick: sc.quickOutcomes,
  },
  'lease.lost': { path: 'scatter.:run.:asset.lease_lost.:lease', format: 'json', version: 1, schema: sc.leaseLost },
  'lease.returned': {
    path: 'scatter.:run.:asset.lease_returned.:lease',
    format: 'json',
    version: 1,
    schema: sc.leaseReturned,
  },
  'scatter.begun': { path: 'scatter.:run.:asset.begun.:lease', format: 'json', version: 1, schema: sc.scatterBegun },
  'scatter.paused': { path: 'scatter.:run.:asset.hold.paused', format: 'json', version: 1, schema: sc.scatterPaused },
  'scatter.resumed': {
    path: 'scatter.:run.:asset.hold.resumed',
    format: 'json',
    version: 1,
    schema: sc.scatterResumed,
  },
  'scatter.timer_fired': {
    path: 'scatter.:run.:asset.timer_fired',
    format: 'json',
    version: 1,
    schema: sc.scatterTimerFired,
  },
  'scatter.cancel_requested': {
    path: 'scatter.:run.:asset.cancel_requested',
    format: 'json',
    version: 1,
    schema: sc.scatterCancelRequested,
  },
  'scatter.ended_early': {
    path: 'scatter.:run.:asset.ended_early',
    format: 'json',
    version: 1,
    schema: sc.scatterEndedEarly,
  },
  'scatter.closed': { path: 'scatter.:run.:asset.closed', format: 'json', version: 1, schema: sc.scatterClosed },
  'subscription.taken': {
    path: 'subscription.:pipeline.:subscription.taken.:source.:from',
    format: 'json',
    version: 1,
    schema: e.subscriptionTaken,
  },
  'event.retried': {
    path: 'subscription.:pipeline.:subscription.retried.:source.:seq',
    format: 'json',
    version: 1,
    schema: e.eventRetried,
  },
  'event.refused': {
    path: 'subscription.:pipeline.:subscription.refused.:source.:seq',
    format: 'json',
    version: 1,
    schema: e.eventRefused,
  },
  'event.timer_fired': {
    path: 'subscription.:pipeline.:subscription.group.:group.timer_fired',
    format: 'json',
    version: 1,
    schema: e.eventTimerFired,
  },
  'schedule.due': {
    path: 'schedule.:pipeline.:schedule.due.:step',
    format: 'json',
    version: 1,
    schema: c.scheduleDue,
  },
  'schedule.fired': {
    path: 'schedule.:pipeline.:schedule.at.:occurrence.fired',
    format: 'json',
    version: 1,
    schema: c.scheduleFired,
  },
  'schedule.skipped': {
    path: 'schedule.:pipeline.:schedule.at.:occurrence.skipped',
    format: 'json',
    version: 1,
    schema: c.scheduleSkipped,
  },
  'schedule.missed': {
    path: 'schedule.:pipeline.:schedule.at.:occurrence.missed',
    format: 'json',
    version: 1,
    schema: c.scheduleMissed,
  },
  'schedule.paused': {
    path: 'schedule.:pipeline.:schedule.hold.paused',
    format: 'json',
    version: 1,
    schema: c.schedulePaused,
  },
  'schedule.resumed': {
    path: 'schedule.:pipeline.:schedule.hold.resumed',
    format: 'json',
    version: 1,
    schema: c.scheduleResumed,
  },
  'schedule.triggered': {
    path: 'schedule.:pipeline.:schedule.triggered.:request',
    format: 'json',
    version: 1,
    schema: c.scheduleTriggered,
  },
  'schedule.backfill_requested': {
    path: 'schedule.:pipeline.:schedule.backfill_requested.:request',
    format: 'json',
    version: 1,
    schema: c.scheduleBackfillRequested,
  },
  'sensor.paused': { path: 'sensor.:pipeline.:sensor.hold.paused', format: 'json', version: 1, schema: c.sensorPaused },
  'sensor.resumed': {
    path: 'sensor.:pipeline.:sensor.hold.resumed',
    format: 'json',
    version: 1,
    schema: c.sensorResumed,
  },
  'sensor.triggered': {
    path: 'sensor.:pipeline.:sensor.triggered.:request',
    format: 'json',
    version: 1,
    schema: c.sensorTriggered,
  },
  'trigger.received': { path: 'trigger.:trigger.received', format: 'msgpack', version: 1, schema: r.triggerReceived },
  'trigger.refused': { path: 'trigger.:trigger.refused', format: 'json', version: 1, schema: r.triggerRefused },
} as const satisfies Record<string, FactDefinition>

export type FactName = keyof typeof FACTS
export type FactData<N extends FactName> = z.infer<(typeof FACTS)[N]['schema']>

interface IdTypes {
  run: RunId
  asset: AssetName
}
type IdNames<P extends string> = P extends `${infer Head}.${infer Tail}`
  ? IdNames<Head> | IdNames<Tail>
  : P extends `:${infer Id}`
    ? Id
    : never
export type FactIds<N extends FactName> = {
  readonly [I in IdNames<(typeof FACTS)[N]['path']>]: I extends keyof IdTypes ? IdTypes[I] : string
}

/** What is to be appended. */
export type FactDraft = {
  [N in FactName]: { readonly name: N; readonly ids: FactIds<N>; readonly data: FactData<N> }
}[FactName]

export type DraftOf<N extends FactName> = Extract<FactDraft, { name: N }>

/**
 * What stands on the log. `timeMs` is the server's clock when it stored the fact: the only clock
 * that folds and decisions know.
 */
export type Fact = FactDraft & { readonly shard: number; readonly seq: number; readonly timeMs: number }

export type FactOf<N extends FactName> = Extract<Fact, { name: N }>

const paths = new Map<FactName, PathTemplate>()
const byHead = new Map<string, { name: FactName; tokens: readonly string[] }[]>()
for (const name of factNames()) {
  const tokens = FACTS[name].path.split('.')
  paths.set(name, new PathTemplate(`fact ${name}`, FACTS[name].path))
  const head = `${tokens[0]}/${tokens.length}`
  byHead.set(head, [...(byHead.get(head) ?? []), { name, tokens }])
}

export function factNames(): FactName[] {
  return Object.keys(FACTS) as FactName[]
}

/** The part of a fact's subject behind `<ns>.log.<shard>.`. */
export function factPath(name: FactName, ids: Readonly<Record<string, string>>): string {
  return templateOf(name).fill(ids)
}

/** The same with `*` for each id that is not given: a filter of the server. */
export function factFilter(name: FactName, ids: Readonly<Record<string, string | undefined>> = {}): string {
  return templateOf(name).fill(ids, '*')
}

function templateOf(name: FactName): PathTemplate {
  const template = paths.get(name)
  if (!template) throw new FlowStoneError('internal', `there is no fact ${name}`)
  return template
}

/** Facts of which many may stand on one subject. */
export function isRepeatable(name: FactName): boolean {
  return REPEATABLE.has(name)
}

/**
 * The last of the two that stands under `…hold.*` says whether a scatter is paused. A version of a
 * pipeline is registered again when it is the current one again.
 */
const REPEATABLE: ReadonlySet<FactName> = new Set([
  'pipeline.registered',
  'run.adopt_requested',
  'scatter.outcomes',
  'scatter.paused',
  'scatter.resumed',
  'gate.timer_fired',
  'gate.correlated',
  'event.timer_fired',
  'schedule.paused',
  'schedule.resumed',
  'sensor.paused',
  'sensor.resumed',
])

/**
 * A path that ends so is no fact but a schedule: the server will append the fact that follows from
 * it (`…timer_fired`) when it is time.
 */
const TIMER = '.timer'
const FIRED = '.timer_fired'

export function isTimer(path: string): boolean {
  return path.endsWith(TIMER)
}

/** Where the schedule stands that brings a fact on this path; undefined when no timer brings it. */
export function timerPath(path: string): string | undefined {
  return path.endsWith(FIRED) ? `${path.slice(0, -FIRED.length)}${TIMER}` : undefined
}

/** Whether a path is under a filter, in which a token may be `*`, and the last one `>`. */
export function isUnder(path: string, filter: string): boolean {
  if (path === filter) return true
  const [tokens, wanted] = [path.split('.'), filter.split('.')]
  const isOpen = wanted.at(-1) === '>'
  if (isOpen ? tokens.length < wanted.length : tokens.length !== wanted.length) return false
  return wanted.every((token, i) => token === '*' || token === tokens[i] || (isOpen && i === wanted.length - 1))
}

/** Which fact a path is, with its ids; undefined for what is no fact of ours. */
export function parsePath(path: string): { name: FactName; ids: Record<string, string> } | undefined {
  const tokens = path.split('.')
  for (const candidate of byHead.get(`${tokens[0]}/${tokens.length}`) ?? []) {
    const ids: Record<string, string> = {}
    const matches = candidate.tokens.every((token, i) => {
      const actual = tokens[i] ?? ''
      if (token.startsWith(':')) ids[token.slice(1)] = actual
      else return token === actual
      return true
    })
    if (matches) return { name: candidate.name, ids }
  }
  return undefined
}

/** `by`: who caused it, where that is somebody outside. */
export function encodeFact(draft: FactDraft, by?: string): { payload: Uint8Array; contentType: string } {
  const { format, version } = FACTS[draft.name]
  const body = { v: version, fact: draft.name, ...draft.data, ...(by === undefined ? {} : { by }) }
  return { payload: encode(body, format), contentType: CONTENT_TYPE[format] }
}

export interface RawFact {
  readonly path: string
  readonly payload: Uint8Array
  readonly contentType: string | undefined
  readonly shard: number
  readonly seq: number
  readonly timeMs: number
}

/**
 * Reads a fact, raising old versions to today's. Throws FlowStoneError `unknown_fact` (nothing of
 * ours), `newer_version` (written by a newer FlowStone: upgrade this process), `undecodable` or
 * `bad_fact` (somebody else wrote here).
 */
export function decodeFact(raw: RawFact, table: Readonly<Record<string, FactDefinition>> = FACTS): Fact {
  const parsed = parsePath(raw.path)
  if (!parsed) throw new FlowStoneError('unknown_fact', `${raw.path} is no fact of FlowStone`)
  checkIds(parsed.ids, raw)
  const definition = table[parsed.name]
  if (!definition) throw new FlowStoneError('unknown_fact', `${parsed.name} is not in this table of facts`)
  let body = asRecord(decode(raw.payload, raw.contentType, true), parsed.name)
  let version = versionOf(body, parsed, raw.seq)
  if (version > definition.version) {
    throw new FlowStoneError(
      'newer_version',
      `${parsed.name} at ${raw.seq} has version ${version}, this process knows ${definition.version}; upgrade it before it reads this log`,
    )
  }
  for (; version < definition.version; version++) {
    const upcast = definition.upcasters?.[version]
    if (!upcast) throw new FlowStoneError('internal', `${parsed.name} has no upcaster from version ${version}`)
    body = upcast(body)
  }
  const quick = definition.quick?.(body)
  const checked = quick ? { success: true as const, data: quick } : definition.schema.safeParse(body)
  if (!checked.success) {
    const issue = checked.error.issues[0]
    throw new FlowStoneError(
      'bad_fact',
      `${parsed.name} at ${raw.seq}: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}`,
    )
  }
  // The one place where the wire's untyped parts become the typed union; schema and path were
  // checked above.
  return {
    name: parsed.name,
    ids: parsed.ids,
    data: checked.data,
    shard: raw.shard,
    seq: raw.seq,
    timeMs: raw.timeMs,
  } as Fact
}

/**
 * A body says which fact it is, and of which run and asset. Whoever may publish anywhere can have
 * the server send to any subject, by naming it as where to reply: acknowledgements, and messages of
 * streams that it may read. None of these counts as a fact of this place.
 */
function versionOf(
  body: Readonly<Record<string, unknown>>,
  { name, ids }: { readonly name: FactName; readonly ids: Readonly<Record<string, string>> },
  seq: number,
): number {
  if (body.fact !== name || typeof body.v !== 'number')
    throw new FlowStoneError('bad_fact', `${name} at ${seq} does not say that it is one, and of which version`)
  for (const id of ['run', 'asset'] as const)
    if (ids[id] !== undefined && typeof body[id] === 'string' && body[id] !== ids[id])
      throw new FlowStoneError(
        'bad_fact',
        `${name} at ${seq} is of ${id} ${ids[id]} by its subject, and of another one by its body`,
      )
  return body.v
}

/**
 * What is decided of a fact stands on subjects of its ids, and longer than a server takes: nothing
 * of ours has such ids.
 */
const ID_MAX = 256

function checkIds(ids: Readonly<Record<string, string>>, { path, shard, seq }: RawFact): void {
  for (const [name, id] of Object.entries(ids))
    if (id.length > ID_MAX)
      throw new FlowStoneError('bad_fact', `message ${seq}: its ${name} has ${id.length} characters, of ${ID_MAX}`)
  if (ids.run === undefined) return
  if (!isRunId(ids.run, shard)) throw new FlowStoneError('bad_fact', `${path} at ${seq}: no run id of log ${shard}`)
}

function asRecord(value: unknown, name: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw new FlowStoneError('bad_fact', `${name} must hold an object`)
}
