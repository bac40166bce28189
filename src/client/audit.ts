/** `flow.audit`: what people and outside systems did, from the logs and the history. */

import {
  AUDITED,
  type AuditEntry,
  type AuditPlace,
  type AuditWanted,
  auditOf,
  isWanted,
  isWantedKind,
  Newest,
} from '../../projections/audit.ts'
import { BY_MAX } from '../../streams/by.ts'
import { nearest } from '../../streams/did-you-mean.ts'
import { InvalidError } from '../../streams/errors.ts'
import { type Fact, factFilter, parsePath } from '../../streams/facts.ts'
import type { SealedFact } from '../../streams/history.ts'
import { shown } from '../../streams/shown.ts'
import { cut } from '../../streams/text.ts'
import { messagesUnder } from '../log/messages-under.ts'
import { packsNewestFirst } from '../log/packs.ts'
import { factIfAny, sealedFactIfAny } from '../log/read-fact.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import type { RunDeps } from './run-view.ts'

/** Which of what people and outside systems did. All that is named must hold. */
export interface AuditOptions {
  /**
   * Who: `cli:ana@laptop`, or a part of it: `ana@laptop`, `ana`. `*` stands for any text:
   * `http:*`.
   */
  readonly by?: string
  /** Stored since then. Default: all that there is. */
  readonly since?: Date
  /** Stored before then. */
  readonly until?: Date
  /** For the next page: the last entry of the page before. Those that come behind it. */
  readonly after?: AuditPlace
  /** Facts: `'run.cancel_requested'`, or all of a kind: `'run'`. */
  readonly kind?: string | readonly string[]
  /** At most so many, the newest. Default 100, at most 10,000. */
  readonly limit?: number
}

const OPTIONS: OptionNames<AuditOptions> = { by: true, since: true, until: true, after: true, kind: true, limit: true }
const LIMIT_MAX = 10_000

/** Newest first. */
export async function audit(deps: RunDeps, options: AuditOptions): Promise<AuditEntry[]> {
  const { limit, ...wanted } = wantedOf(options)
  await deps.found()
  const newest = new Newest(limit)
  const { past } = deps.docs
  const take = (fact: Fact | undefined): void => {
    const entry = fact && past?.has(fact) !== false ? auditOf(fact) : undefined
    if (entry && isWanted(entry, wanted)) newest.add(entry)
  }
  for (let shard = 0; shard < deps.shards; shard++) {
    await fromLog(deps, shard, wanted, take)
    await fromHistory(deps, shard, { wanted, floorMs: () => newest.floorMs, take })
  }
  return newest.list()
}

/** Throws InvalidError that names the option. */
function wantedOf(options: AuditOptions): AuditWanted & { readonly limit: number } {
  refuseUnknown('audit', options, OPTIONS)
  const { by, since, until, after, kind, limit = 100 } = options
  if (!Number.isInteger(limit) || limit < 1 || limit > LIMIT_MAX)
    throw new InvalidError(`audit: limit must be a whole number from 1 to ${LIMIT_MAX}, got ${shown(limit)}`)
  const place: unknown = after
  if (place !== undefined && (typeof place !== 'object' || place === null))
    throw new InvalidError('audit: after must be an entry of the audit: at, shard and seq')
  for (const [field, date] of Object.entries({ since, until, ...(after ? { 'after.at': after.at } : {}) }))
    if (date !== undefined && !(date instanceof Date && Number.isFinite(date.getTime())))
      throw new InvalidError(`audit: ${field} must be a Date, got ${shown(date)}`)
  if (after !== undefined && !(Number.isInteger(after.shard) && Number.isInteger(after.seq)))
    throw new InvalidError('audit: after must be an entry of the audit: at, shard and seq')
  if (by !== undefined && (typeof by !== 'string' || by === '' || by.length > BY_MAX))
    throw new InvalidError(
      `audit: by must be text of at most ${BY_MAX} characters, such as 'ana' or 'http:*', got ${shown(by)}`,
    )
  const kinds = kind === undefined ? undefined : typeof kind === 'string' ? [kind] : kind
  if (kinds !== undefined && !(Array.isArray(kinds) && kinds.every((one) => typeof one === 'string')))
    throw new InvalidError(`audit: kind must be the name of a fact, or a list of them, got ${shown(kind)}`)
  for (const one of kinds ?? [])
    if (!AUDITED.some((name) => isWantedKind(name, [one])))
      throw new InvalidError(
        `audit: kind: nothing that is audited is named ${cut(one, 140)}${nearest(one, [...AUDITED])}`,
      )
  return {
    by,
    kinds,
    sinceMs: since?.getTime() ?? Number.NEGATIVE_INFINITY,
    untilMs: Math.min(until?.getTime() ?? Number.POSITIVE_INFINITY, after ? after.at.getTime() + 1 : Infinity),
    after,
    limit,
  }
}

async function fromLog(
  { connection, names }: RunDeps,
  shard: number,
  { kinds, sinceMs }: AuditWanted,
  take: (fact: Fact | undefined) => void,
): Promise<void> {
  const audited = AUDITED.filter((name) => isWantedKind(name, kinds))
  const filters = audited.map((name) => names.fact(shard, factFilter(name)))
  const from = Number.isFinite(sinceMs) ? new Date(sinceMs) : 1
  for await (const message of messagesUnder(connection, names.log(shard), filters, from))
    take(factIfAny(names, shard, message))
}

async function fromHistory(
  deps: RunDeps,
  shard: number,
  {
    wanted,
    floorMs,
    take,
  }: {
    readonly wanted: AuditWanted
    readonly floorMs: () => number
    readonly take: (fact: Fact | undefined) => void
  },
): Promise<void> {
  for await (const { timeMs, runs } of packsNewestFirst(deps, shard)) {
    if (timeMs < Math.max(wanted.sinceMs, floorMs())) return
    for (const { facts } of await runs())
      for (const fact of facts) if (isMaybeWanted(fact, wanted)) take(sealedFactIfAny(deps, shard, fact))
  }
}

/** By what is known without decoding it. */
function isMaybeWanted({ path, timeMs }: SealedFact, { kinds, sinceMs, untilMs }: AuditWanted): boolean {
  const name = timeMs >= sinceMs && timeMs < untilMs ? parsePath(path)?.name : undefined
  return name !== undefined && isWantedKind(name, kinds)
}
