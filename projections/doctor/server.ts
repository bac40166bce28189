/** Findings about the server, the account, the user and the clocks. */
import { compareVersions, MIN_SERVER_VERSION } from '../../streams/version.ts'
import { abilityFindings, type SeenPermissions } from './abilities.ts'
import { ageText, bad, bytesText, type Finding, type Look, ofLook, ok, warn } from './finding.ts'

export interface SeenServer {
  readonly ns: string
  readonly version: string
  readonly maxPayload: number
  readonly cluster: string | undefined
  readonly domain: string | undefined
  readonly account: Look<SeenAccount>
  readonly user: Look<SeenUser>
  /** By the server's monitoring port. Undefined: nobody named it. */
  readonly monitor: Look<SeenMonitor> | undefined
  /** This host's clock minus the server's, and how far off that may be. */
  readonly clock: Look<{ readonly offsetMs: number; readonly vagueMs: number }>
  /** Of the server that this process is connected to; undefined: it has no TLS. */
  readonly certificate: Look<{ readonly endsInMs: number } | undefined>
  /** Permissions that the server denied to this process. */
  readonly denied: readonly string[]
}

/** What the account uses, and may use; -1 is no limit. */
export interface SeenAccount {
  readonly storage: number
  readonly maxStorage: number
  readonly streams: number
  readonly maxStreams: number
  readonly consumers: number
  readonly maxConsumers: number
}

export interface SeenUser {
  readonly user: string
  readonly account: string
  /** When the credentials end. */
  readonly expiresInMs: number | undefined
  readonly publish: SeenPermissions
}

export interface SeenMonitor {
  readonly syncAlways: boolean
  readonly syncIntervalMs: number
  readonly storage: number
  readonly maxStorage: number
  readonly slowConsumers: number
}

const CLOCK_WARN_MS = 2000
const CLOCK_BAD_MS = 60_000
const NEARLY_FULL = 0.8
const FULL = 0.95
const EXPIRES_SOON_MS = 7 * 86_400_000
const CERTIFICATE_SOON_MS = 30 * 86_400_000
const PAYLOAD_MIN = 1024 * 1024
const MONITOR_ADVICE = "name the server's monitoring port: flowstone doctor --monitor http://host:8222"

export function serverFindings(seen: SeenServer): Finding[] {
  return [
    versionFinding(seen.version),
    seen.maxPayload < PAYLOAD_MIN
      ? warn(
          'server.max_payload',
          `messages hold ${bytesText(seen.maxPayload)}`,
          'set max_payload to 1MB or more: pipelines, values and checkpoints are split more often, or refused',
        )
      : ok('server.max_payload', `messages hold ${bytesText(seen.maxPayload)}`),
    ok(
      'server.place',
      [
        seen.cluster === undefined ? 'a single server' : `in cluster ${seen.cluster}`,
        ...(seen.domain === undefined ? [] : [`JetStream domain ${seen.domain}`]),
      ].join(', '),
    ),
    ...(seen.monitor === undefined
      ? [
          {
            level: 'unseen',
            check: 'server.fsync',
            says: 'only the monitoring port of the server says how often it syncs to disk',
            advice: `${MONITOR_ADVICE}; sync_interval: always, or three replicas, keep what was acknowledged`,
          } as const,
        ]
      : ofLook({ check: 'server.fsync' }, seen.monitor, (monitor) => monitorFindings(monitor, seen.cluster))),
    ...ofLook({ check: 'account.limits' }, seen.account, accountFindings),
    ...ofLook({ check: 'clock.offset' }, seen.clock, clockFindings),
    ...ofLook({ check: 'server.certificate' }, seen.certificate, (one) => (one ? [certificateFinding(one)] : [])),
    ...ofLook({ check: 'user' }, seen.user, (user) => [
      ...userFindings(user),
      ...abilityFindings(seen.ns, user.publish),
    ]),
    ...(seen.denied.length === 0
      ? []
      : [
          warn(
            'user.denied',
            `the server denied: ${seen.denied.join(', ')}`,
            'what needs it was not looked at; ask with the NATS role operator (docs/permissions.md)',
          ),
        ]),
  ]
}

function versionFinding(version: string): Finding {
  return compareVersions(version, MIN_SERVER_VERSION) < 0
    ? bad('server.version', `nats-server ${version}`, `upgrade it to ${MIN_SERVER_VERSION} or later`)
    : ok('server.version', `nats-server ${version}; ${MIN_SERVER_VERSION} or later is needed`)
}

function certificateFinding({ endsInMs }: { readonly endsInMs: number }): Finding {
  const check = 'server.certificate'
  const advice = 'make a new one, and have the server read it: nats-server --signal reload'
  if (endsInMs <= 0) return bad(check, 'the TLS certificate of the server has expired', `${advice}; nobody can connect`)
  const says = `the TLS certificate of the server expires in ${ageText(endsInMs)}`
  return endsInMs > CERTIFICATE_SOON_MS ? ok(check, says) : warn(check, says, advice)
}

function monitorFindings(
  { syncAlways, syncIntervalMs, storage, maxStorage, slowConsumers }: SeenMonitor,
  cluster: string | undefined,
): Finding[] {
  const fsync = syncAlways
    ? ok('server.fsync', 'what is acknowledged is on disk')
    : warn(
        'server.fsync',
        `the server syncs to disk every ${ageText(syncIntervalMs)}: a power failure loses what came since`,
        cluster === undefined
          ? 'set sync_interval: always in its jetstream block'
          : 'set sync_interval: always in its jetstream block, or be sure that three servers never fail together',
      )
  return [
    fsync,
    ...roomFindings('server.storage', 'the server', storage, maxStorage),
    slowConsumers > 0
      ? warn(
          'server.slow_consumers',
          `${slowConsumers} connections were cut because they read too slowly`,
          'look for processes whose event loop is blocked, and at the network',
        )
      : ok('server.slow_consumers', 'no connection was cut for reading too slowly'),
  ]
}

function accountFindings(seen: SeenAccount): Finding[] {
  return [
    ...roomFindings('account.storage', 'the account', seen.storage, seen.maxStorage),
    ...countFindings('account.streams', 'streams', seen.streams, seen.maxStreams),
    ...countFindings('account.consumers', 'consumers', seen.consumers, seen.maxConsumers),
  ]
}

const ROOM_ADVICE =
  'make room: raise the limit, seal and prune ended runs; when it is full, nothing is stored and everything waits'

export function roomFindings(check: string, whose: string, used: number, max: number, about?: string): Finding[] {
  if (max <= 0) return [ok(check, `${whose} has ${bytesText(used)}, and no limit`, about)]
  const says = `${whose} has ${bytesText(used)} of ${bytesText(max)}`
  if (used >= FULL * max) return [bad(check, says, ROOM_ADVICE, about)]
  if (used >= NEARLY_FULL * max) return [warn(check, says, ROOM_ADVICE, about)]
  return [ok(check, says, about)]
}

function countFindings(check: string, what: string, used: number, max: number): Finding[] {
  if (max <= 0) return [ok(check, `${used} ${what}, and no limit`)]
  const says = `${used} ${what} of ${max}`
  if (used >= max) return [bad(check, says, `raise the account's limit of ${what}: no more can be made`)]
  if (used >= NEARLY_FULL * max) return [warn(check, says, `raise the account's limit of ${what}`)]
  return [ok(check, says)]
}

function clockFindings({ offsetMs, vagueMs }: { readonly offsetMs: number; readonly vagueMs: number }): Finding[] {
  const surely = Math.max(0, Math.abs(offsetMs) - vagueMs)
  const says = `this host's clock is ${Math.abs(Math.round(offsetMs))} ms ${offsetMs < 0 ? 'behind' : 'ahead of'} the server's`
  const advice = 'keep both by NTP: facts have the time of the server, API keys and certificates that of their host'
  if (surely >= CLOCK_BAD_MS) return [bad('clock.offset', says, advice)]
  return [surely >= CLOCK_WARN_MS ? warn('clock.offset', says, advice) : ok('clock.offset', says)]
}

function userFindings({ user, account, expiresInMs }: SeenUser): Finding[] {
  const who = user === '' ? `nobody in particular, in account ${account}` : `${user} in account ${account}`
  const open =
    user === ''
      ? [
          warn(
            'user',
            `the server takes this process for ${who}`,
            'give each role a user of its own with the permissions it needs: docs/permissions.md',
          ),
        ]
      : [ok('user', `the server takes this process for ${who}`)]
  if (expiresInMs === undefined) return open
  const says = expiresInMs <= 0 ? 'the credentials have expired' : `the credentials expire in ${ageText(expiresInMs)}`
  if (expiresInMs > EXPIRES_SOON_MS) return [...open, ok('user.expires', says)]
  return [...open, warn('user.expires', says, 'make new ones, and put them where the processes read them')]
}
