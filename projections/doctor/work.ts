/** Findings about work: queues, what is open and does not move, what belongs to nobody any more. */
import { ageText, bad, type Finding, type Look, ofLook, ok, warn } from './finding.ts'

export interface SeenConsumer {
  readonly shard: number
  readonly name: string
  /** Of a limited queue: its run. */
  readonly run: string | undefined
  readonly pending: number
  readonly ackPending: number
  readonly redelivered: number
  /** Requests of workers that wait for a task. */
  readonly waiting: number
}

export interface SeenRun {
  readonly id: string
  readonly status: string
  readonly ageMs: number
  /** Of all its assets, in a plan. */
  readonly assets: readonly string[]
  /** Whether it waits for its turn, by a concurrency key. */
  readonly queued: boolean
}

export interface SeenWork {
  readonly consumers: Look<readonly SeenConsumer[]>
  /** Tasks that no worker with their code was there for. */
  readonly unmatched: Look<number>
  /** Ids of all open runs. */
  readonly open: Look<ReadonlySet<string>>
  /** The oldest of the open runs. */
  readonly oldest: Look<readonly SeenRun[]>
  /** Runs that timers of the log are for. */
  readonly timers: Look<readonly string[]>
  readonly triggers: Look<{ readonly count: number; readonly oldestMs: number | undefined }>
  readonly schedules: Look<readonly SeenSchedule[]>
}

export interface SeenSchedule {
  readonly name: string
  readonly kind: 'schedule' | 'sensor'
  readonly paused: boolean
  /** How long ago it was due; undefined: it is due later. */
  readonly lateMs: number | undefined
  /** In a row. */
  readonly failures: number
}

const REDELIVERED_MANY = 3
const STILL_MS = 120_000
const LATE_MS = 60_000
const OLD_MS = 7 * 86_400_000
const TRIGGER_LATE_MS = 10_000
const FAILURES_MANY = 3
const SHOWN = 5

/** Of an asset that something moves, or that waits for one that is moved. */
const MOVED: ReadonlySet<string> = new Set(['queued', 'running', 'suspended', 'scattering'])

export function workFindings(seen: SeenWork): Finding[] {
  return [
    ...ofLook({ check: 'work.queues' }, seen.consumers, queueFindings),
    ...ofLook({ check: 'work.unmatched' }, seen.unmatched, (count) => [
      count === 0
        ? ok('work.unmatched', 'no task waits for a worker with other code')
        : warn(
            'work.unmatched',
            `${count} tasks wait for a worker with their code`,
            'start a worker of that version, or have the runs adopted: flowstone adopt RUN; flowstone status RUN says what differs',
          ),
    ]),
    ...ofLook({ check: 'runs.oldest' }, seen.oldest, oldestFindings),
    ...orphanFindings(seen),
    ...ofLook({ check: 'triggers.waiting' }, seen.triggers, ({ count, oldestMs }) => [
      oldestMs !== undefined && oldestMs >= TRIGGER_LATE_MS
        ? bad(
            'triggers.waiting',
            `${count} triggers wait, the oldest for ${ageText(oldestMs)}`,
            'is an engine active on shard 0? It copies them to the log',
          )
        : ok('triggers.waiting', 'no trigger waits for long'),
    ]),
    ...ofLook({ check: 'schedules' }, seen.schedules, scheduleFindings),
  ]
}

function queueFindings(consumers: readonly SeenConsumer[]): Finding[] {
  const found = consumers.flatMap((consumer) => {
    const { shard, name, pending, ackPending, redelivered, waiting } = consumer
    const about = `${name} of shard ${shard}`
    return [
      ...(redelivered >= REDELIVERED_MANY
        ? [
            warn(
              'work.redelivered',
              `${redelivered} tasks were delivered more than once and are not done`,
              'their workers died or were blocked: look at logs of workers for memory and blocked event loops; flowstone status RUN names the attempts',
              about,
            ),
          ]
        : []),
      ...(pending > 0 && waiting === 0 && ackPending === 0
        ? [
            warn(
              'work.no_worker',
              `${pending} tasks wait, and no worker asks for any`,
              'start a worker of that pipeline which serves the queue',
              about,
            ),
          ]
        : []),
    ]
  })
  const sum = (of: (consumer: SeenConsumer) => number): number => consumers.reduce((all, one) => all + of(one), 0)
  const says = `${sum(({ pending }) => pending)} tasks wait and ${sum(({ ackPending }) => ackPending)} are in hand, in ${consumers.length} queues`
  return [ok('work.queues', says), ...found]
}

function oldestFindings(runs: readonly SeenRun[]): Finding[] {
  const stuck = runs.filter(isStuck)
  const old = runs.filter(({ ageMs }) => ageMs >= OLD_MS)
  const shown = (some: readonly SeenRun[]): string =>
    `${some
      .slice(0, SHOWN)
      .map(({ id, ageMs }) => `${id} (${ageText(ageMs)})`)
      .join(', ')}${some.length > SHOWN ? ' …' : ''}`
  return [
    ...(stuck.length > 0
      ? [
          bad(
            'runs.stuck',
            `nothing moves ${stuck.length} open runs: ${shown(stuck)}`,
            'is an engine active? Its reconciler looks every 30 s. If they stay, flowstone rebuild carries out what is missing',
          ),
        ]
      : []),
    ...(old.length > 0
      ? [
          warn(
            'runs.old',
            `${old.length} runs are open for long: ${shown(old)}`,
            'flowstone status RUN says what each waits for; an open run keeps its facts on the log',
          ),
        ]
      : []),
    ...(stuck.length + old.length > 0 ? [] : [ok('runs.oldest', `of the ${runs.length} oldest open runs, all move`)]),
  ]
}

/** Open, and by its document nothing will ever come that ends it. */
function isStuck({ status, ageMs, assets, queued }: SeenRun): boolean {
  if (ageMs < STILL_MS) return false
  if (status === 'requested') return !queued
  return status === 'running' && !assets.some((asset) => MOVED.has(asset))
}

function orphanFindings({ open, consumers, timers }: SeenWork): Finding[] {
  if (!('value' in open)) return [...ofLook({ check: 'orphans' }, open, () => [])]
  const isOrphan = (run: string | undefined): boolean => run !== undefined && !open.value.has(run)
  const shown = (some: readonly string[]): string =>
    `${some.slice(0, SHOWN).join(', ')}${some.length > SHOWN ? ' …' : ''}`
  return [
    ...ofLook({ check: 'orphans.consumers' }, consumers, (all) => {
      const orphans = all.filter(({ run }) => isOrphan(run)).map(({ name }) => name)
      return [
        orphans.length === 0
          ? ok('orphans.consumers', 'each limited queue is of an open run')
          : warn(
              'orphans.consumers',
              `${orphans.length} limited queues are of runs that have ended: ${shown(orphans)}`,
              'the reconciler of an active engine takes them away; if they stay, delete these consumers: nats consumer rm',
            ),
      ]
    }),
    ...ofLook({ check: 'orphans.timers' }, timers, (runs) => {
      const orphans = [...new Set(runs.filter(isOrphan))]
      return [
        orphans.length === 0
          ? ok('orphans.timers', 'each timer on the log is of an open run')
          : warn(
              'orphans.timers',
              `timers of ${orphans.length} runs that have ended: ${shown(orphans)}`,
              'they do no harm: what they bring is ignored. If they become more, please report it',
            ),
      ]
    }),
  ]
}

function scheduleFindings(all: readonly SeenSchedule[]): Finding[] {
  const found = all.flatMap(({ name, kind, paused, lateMs, failures }) => [
    ...(paused ? [ok('schedules.paused', `${kind} is paused`, name)] : []),
    ...(!paused && lateMs !== undefined && lateMs >= LATE_MS
      ? [
          bad(
            'schedules.late',
            `${kind} was due ${ageText(lateMs)} ago`,
            'is an engine active on shard 0? It has the clock of schedules',
            name,
          ),
        ]
      : []),
    ...(failures >= FAILURES_MANY
      ? [warn('schedules.failing', `${kind} failed ${failures} times in a row`, `flowstone ${kind} show ${name}`, name)]
      : []),
  ])
  return [ok('schedules', `${all.length} schedules and sensors`), ...found]
}
