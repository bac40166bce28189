/** What a user may do, by the permissions that the server says it has. */
import { type Finding, ok, warn } from './finding.ts'

export interface SeenPermissions {
  /** Undefined: all subjects. */
  readonly allow: readonly string[] | undefined
  readonly deny: readonly string[]
}

/** One subject for each: who may publish there may do it. */
const ABILITIES: readonly (readonly [what: string, subject: (ns: string) => string])[] = [
  ['start runs', (ns) => `${ns}.log.0.run.0-x.requested`],
  ['cancel runs', (ns) => `${ns}.log.0.run.0-x.cancel_requested`],
  ['answer gates', (ns) => `${ns}.log.0.gate.0-x.asset.gate.resolved`],
  ['act on scatters', (ns) => `${ns}.log.0.scatter.0-x.asset.hold.paused`],
  ['act on schedules', (ns) => `${ns}.log.0.schedule.pipeline.schedule.hold.paused`],
  ['send triggers', (ns) => `${ns}.trigger.pipeline.asset`],
  ['take tasks', (ns) => `$JS.API.CONSUMER.MSG.NEXT.${ns}_WORK_0.queue`],
  ['be an engine', (ns) => `$KV.${ns}_state_0.engine`],
]
const DELETES = (ns: string): string => `$JS.API.STREAM.DELETE.${ns}_LOG_0`

export function abilityFindings(ns: string, publish: SeenPermissions): Finding[] {
  const may = (subject: string): boolean => mayPublish(publish, subject)
  const able = ABILITIES.filter(([, subject]) => may(subject(ns))).map(([what]) => what)
  const unable = ABILITIES.filter(([, subject]) => !may(subject(ns))).map(([what]) => what)
  const says = [
    ...(able.length === 0 ? [] : [`may ${able.join(', ')}`]),
    ...(unable.length === 0 ? [] : [`may not ${unable.join(', ')}`]),
  ].join('; ')
  return [
    ok('user.may', says),
    ...(may(DELETES(ns))
      ? [
          warn(
            'user.may_delete',
            'this user may delete the log, and write any fact',
            'give each role a user of its own, with the permissions that it needs: docs/permissions.md',
          ),
        ]
      : []),
  ]
}

export function mayPublish({ allow, deny }: SeenPermissions, subject: string): boolean {
  const under = (filter: string): boolean => isUnder(subject, filter)
  return (allow === undefined || allow.some(under)) && !deny.some(under)
}

/** As the server does it: `*` is one token, `>` is one or more at the end. */
function isUnder(subject: string, filter: string): boolean {
  const [tokens, wanted] = [subject.split('.'), filter.split('.')]
  const isOpen = wanted.at(-1) === '>'
  const fixed = isOpen ? wanted.slice(0, -1) : wanted
  if (isOpen ? tokens.length <= fixed.length : tokens.length !== fixed.length) return false
  return fixed.every((token, i) => token === '*' || token === tokens[i])
}
