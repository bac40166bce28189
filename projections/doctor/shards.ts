/** Findings about engines, the state, the feed, the proof and the history of each shard. */
import { ageText, bad, bytesText, type Finding, type Look, ofLook, ok, warn } from './finding.ts'

export interface SeenShard {
  readonly shard: number
  /** The active engine. */
  readonly engine: Look<string | undefined>
  /** What keeps engines from working: code and message. */
  readonly problem: Look<{ readonly code: string; readonly message: string } | undefined>
  /** How far the state is, at first and a moment later, and the end of the log then. */
  readonly state: Look<SeenProgress>
  /** The same of the feed: the last fact that it shows. Undefined: it shows none yet. */
  readonly feed: Look<SeenProgress>
  /** Undefined: there is none. */
  readonly proof: Look<SeenProof | undefined>
  readonly history: Look<SeenHistory>
}

export interface SeenProof {
  readonly blocks: number
  /** What the proof of all shards takes. */
  readonly bytes: number
  /** How old the last end of a run is, if it is in no block yet. */
  readonly lateMs: number | undefined
}

export interface SeenProgress {
  readonly before: number
  readonly after: number
  readonly end: number
}

export interface SeenHistory {
  /** It is gone: what was sealed is nowhere else. */
  readonly lost?: string
  /** How old the first fact is that the history has not looked at; none: it has all. */
  readonly oldestMs: number | undefined
  readonly facts: number
  /** Waves whose facts are still to be taken off the log. */
  readonly waves: number
  /** The same for the oldest of them: when it was sealed. */
  readonly oldestWaveMs: number | undefined
  /** Runs that are not pruned because they cannot be archived first: for how long, and why. */
  readonly unarchived?: { readonly ageMs: number; readonly says: string }
}

/** All engines that answered, with the shards that each is active on. */
export type SeenEngines = Look<readonly SeenEngine[]>

export interface SeenEngine {
  readonly engine: string
  readonly active: readonly number[]
  /** The permission that it cannot work without. */
  readonly denied?: string | undefined
}

const LAG_MANY = 20_000
const SEAL_LATE_MS = 3 * 3_600_000
/** Blocks come every few seconds. */
const PROOF_LATE_MS = 60_000
const WAVE_LATE_MS = 24 * 3_600_000

export function shardFindings(shards: readonly SeenShard[], engines: SeenEngines): Finding[] {
  return [...shards.flatMap(ofShard), ...ofLook({ check: 'engine.standby' }, engines, standbyFindings)]
}

function ofShard(seen: SeenShard): Finding[] {
  const about = `shard ${seen.shard}`
  return [
    ...ofLook({ check: 'engine.active', about }, seen.engine, (engine) => [
      engine === undefined
        ? bad('engine.active', 'no engine is active', 'start one: flowstone engine, or flow.engine()', about)
        : ok('engine.active', `${engine} is active`, about),
    ]),
    ...ofLook({ check: 'engine.problem', about }, seen.problem, (problem) =>
      problem
        ? [bad('engine.problem', `${problem.code}: ${problem.message}`, `see docs/errors.md, ${problem.code}`, about)]
        : [],
    ),
    ...ofLook({ check: 'engine.lag', about }, seen.state, (progress) =>
      lagFindings('engine.lag', 'the state', progress, about),
    ),
    ...ofLook({ check: 'feed.lag', about }, seen.feed, (progress) =>
      lagFindings('feed.lag', 'the feed', progress, about),
    ),
    ...ofLook({ check: 'proof.lag', about }, seen.proof, (proof) => [proofFinding(proof, about)]),
    ...ofLook({ check: 'history', about }, seen.history, (history) => historyFindings(history, about)),
  ]
}

/** What is behind and does not move is stuck; what moves catches up. */
function lagFindings(check: string, what: string, { before, after, end }: SeenProgress, about: string): Finding[] {
  const behind = end - before
  if (behind <= 0) return [ok(check, `${what} has all of ${end} messages`, about)]
  if (after <= before)
    return [
      bad(
        check,
        `${what} is ${behind} messages behind, and does not move`,
        'is an engine active? Then look at its log: it says what it fails at',
        about,
      ),
    ]
  if (behind >= LAG_MANY)
    return [
      warn(
        check,
        `${what} is ${behind} messages behind, and moves`,
        'wait; if it stays so, the load is more than one shard takes: docs/performance.md',
        about,
      ),
    ]
  return [ok(check, `${what} is ${behind} messages behind, and moves`, about)]
}

function proofFinding(proof: SeenProof | undefined, about: string): Finding {
  if (!proof) return ok('proof.lag', 'there is no proof', about)
  const size = `${proof.blocks} blocks; the proof takes ${bytesText(proof.bytes)}`
  if (proof.lateMs === undefined || proof.lateMs < PROOF_LATE_MS) return ok('proof.lag', size, about)
  return warn(
    'proof.lag',
    `what happened ${ageText(proof.lateMs)} ago is in no block: ${size}`,
    'is an engine active, with the proof on? Then look at its log: it says what it fails at',
    about,
  )
}

function historyFindings(history: SeenHistory, about: string): Finding[] {
  const { lost, oldestMs, facts, waves, oldestWaveMs, unarchived } = history
  if (lost !== undefined) return [bad('history.lost', lost, 'see docs/errors.md, history_lost', about)]
  const sealed =
    oldestMs !== undefined && oldestMs >= SEAL_LATE_MS
      ? warn(
          'history.sealing',
          `${facts} messages wait to be sealed, the oldest for ${ageText(oldestMs)}`,
          "engines seal an hour after the end; does one run, with sealAfter other than 'never'? Its log says what it fails at",
          about,
        )
      : ok(
          'history.sealing',
          oldestMs === undefined ? 'all is looked at' : `looks at what is ${ageText(oldestMs)} old`,
          about,
        )
  const late = oldestWaveMs !== undefined && oldestWaveMs >= WAVE_LATE_MS
  const purge = late
    ? warn(
        'history.purge',
        `${waves} waves of sealed runs are still on the log, the oldest for ${ageText(oldestWaveMs)}`,
        'a run that stays open holds them up: flowstone status shows the oldest; end it, or wait',
        about,
      )
    : ok('history.purge', `${waves} waves are to be taken off the log`, about)
  const backlog = unarchived && [
    warn(
      'history.archive',
      `runs are not pruned for ${ageText(unarchived.ageMs)}: ${unarchived.says}`,
      'make the archive reachable for the engine; it tries again by itself: docs/retention.md',
      about,
    ),
  ]
  return [sealed, purge, ...(backlog ?? [])]
}

function standbyFindings(engines: readonly SeenEngine[]): Finding[] {
  if (engines.length === 0)
    return [
      {
        level: 'unseen',
        check: 'engine.standby',
        says: 'no engine answered; those of an earlier version do not',
        advice: 'if one is active: upgrade it, or give it the permissions of its role (docs/permissions.md)',
      },
    ]
  const denied = engines.flatMap(({ engine, denied: message }) =>
    message === undefined
      ? []
      : [
          bad(
            'engine.denied',
            `it does not work: ${message}`,
            'give its NATS user the permissions of an engine (docs/permissions.md); it goes on by itself',
            engine,
          ),
        ],
  )
  const able = engines.filter((one) => one.denied === undefined)
  const names = able.map(
    ({ engine, active }) => `${engine} (${active.length === 0 ? 'standby' : `active on ${active.join(', ')}`})`,
  )
  const standby =
    able.length > 1
      ? ok('engine.standby', `${able.length} engines: ${names.join(', ')}`)
      : warn(
          'engine.standby',
          able.length === 0 ? 'no engine can work' : `one engine: ${names.join()}`,
          'start a second one on another host: it takes over within 2.2 s',
        )
  return [...denied, standby]
}
