/** What the doctor reads of the server, the account, the user and the clock. */
import type { SeenPermissions } from '../../../projections/doctor/abilities.ts'
import type { Look } from '../../../projections/doctor/finding.ts'
import type { SeenAccount, SeenMonitor, SeenServer, SeenUser } from '../../../projections/doctor/server.ts'
import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import { domainOf, jetstreamManager } from '../../../streams/jetstream.ts'
import { ask } from '../../log/ask.ts'
import { certificateEnds } from './certificate.ts'
import type { DoctorDeps } from './look.ts'
import { look } from './look.ts'

const NANOS_PER_MS = 1_000_000
const FETCH_MS = 5000

export async function seeServer(
  { connection, clock, names }: DoctorDeps,
  monitor: string | undefined,
): Promise<Omit<SeenServer, 'denied'>> {
  const { info } = connection.nc
  const [account, user, monitored, seenClock, certificate] = await Promise.all([
    look(connection, async () => accountOf(await (await jetstreamManager(connection.nc)).getAccountInfo())),
    look(connection, async () =>
      userOf((await ask(connection.nc, '$SYS.REQ.USER.INFO', '', { timeoutMs: 2000 })).json()),
    ),
    monitor === undefined ? undefined : seeMonitor(monitor),
    look(connection, async () => {
      await clock.ready()
      return { offsetMs: Date.now() - clock.now(), vagueMs: (clock.atMost() - clock.atLeast()) / 2 }
    }),
    look(connection, async () => {
      const ends = await certificateEnds(connection.nc)
      return ends && { endsInMs: ends.getTime() - Date.now() }
    }),
  ])
  return {
    ns: names.ns,
    version: info?.version ?? 'unknown',
    maxPayload: connection.maxPayload,
    cluster: info?.cluster,
    domain: domainOf(connection.nc),
    account,
    user,
    monitor: monitored,
    clock: seenClock,
    certificate,
  }
}

function accountOf(info: unknown): SeenAccount {
  // With limits by number of copies, the sums are those of all.
  const limits = fieldOf(info, 'limits')
  return {
    storage: numberIn(info, 'storage') ?? 0,
    maxStorage: numberIn(limits, 'max_storage') ?? -1,
    streams: numberIn(info, 'streams') ?? 0,
    maxStreams: numberIn(limits, 'max_streams') ?? -1,
    consumers: numberIn(info, 'consumers') ?? 0,
    maxConsumers: numberIn(limits, 'max_consumers') ?? -1,
  }
}

function userOf(answer: unknown): SeenUser {
  const data = fieldOf(answer, 'data')
  if (typeof data !== 'object' || data === null) throw new FlowStoneError('protocol', 'an answer without a user')
  const text = (field: string): string | undefined => {
    const value = fieldOf(data, field)
    return typeof value === 'string' && value !== '' ? value : undefined
  }
  const expires = numberIn(data, 'expires')
  return {
    user: text('user_name') ?? text('user') ?? '',
    account: text('account_name') ?? text('account') ?? 'unknown',
    expiresInMs: expires === undefined ? undefined : expires / NANOS_PER_MS,
    publish: permissionsIn(fieldOf(fieldOf(data, 'permissions'), 'publish')),
  }
}

function permissionsIn(publish: unknown): SeenPermissions {
  const list = (field: string): string[] | undefined => {
    const subjects = fieldOf(publish, field)
    return Array.isArray(subjects) ? subjects.map(String) : undefined
  }
  return { allow: list('allow'), deny: list('deny') ?? [] }
}

async function seeMonitor(address: string): Promise<Look<SeenMonitor>> {
  try {
    const [jsz, varz] = await Promise.all([fetched(address, '/jsz?config=true'), fetched(address, '/varz')])
    const config = fieldOf(jsz, 'config')
    if (numberIn(config, 'max_storage') === undefined)
      return { unseen: `${address} answers, and says nothing of JetStream` }
    return {
      value: {
        syncAlways: fieldOf(config, 'sync_always') === true,
        syncIntervalMs: (numberIn(config, 'sync_interval') ?? 0) / NANOS_PER_MS,
        storage: numberIn(jsz, 'storage') ?? 0,
        maxStorage: numberIn(config, 'max_storage') ?? -1,
        slowConsumers: numberIn(varz, 'slow_consumers') ?? 0,
      },
    }
  } catch (error) {
    return { unseen: `${address} does not answer: ${messageOf(error)}` }
  }
}

async function fetched(address: string, path: string): Promise<unknown> {
  const response = await fetch(new URL(path, address), { signal: AbortSignal.timeout(FETCH_MS) })
  if (!response.ok) throw new Error(`it answers ${response.status}`)
  return await response.json()
}

function fieldOf(of: unknown, field: string): unknown {
  return typeof of === 'object' && of !== null ? Reflect.get(of, field) : undefined
}

function numberIn(of: unknown, field: string): number | undefined {
  const value = fieldOf(of, field)
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}
