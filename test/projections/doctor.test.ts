import { describe, expect, it } from 'vitest'
import { abilityFindings, mayPublish } from '../../projections/doctor/abilities.ts'
import { ageText, bytesText, type Finding, ofLook, worstFirst } from '../../projections/doctor/finding.ts'
import { secretFindings } from '../../projections/doctor/secrets.ts'
import { type SeenServer, serverFindings } from '../../projections/doctor/server.ts'
import { type SeenShard, shardFindings } from '../../projections/doctor/shards.ts'
import { type SeenStream, streamFindings } from '../../projections/doctor/streams.ts'
import { type SeenConsumer, type SeenWork, workFindings } from '../../projections/doctor/work.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const value = <T>(of: T): { readonly value: T } => ({ value: of })
const DENIED = { unseen: 'the server denied it' }
/** All that is not fine: `level check (about)`. */
const wrong = (findings: readonly Finding[]): string[] =>
  findings
    .filter(({ level }) => level !== 'ok')
    .map(({ level, check, about }) => `${level} ${check}${about === undefined ? '' : ` (${about})`}`)

const PUBLISH = { allow: ['ns.trigger.>'], deny: [] }
const SERVER: SeenServer = {
  ns: 'ns',
  version: '2.15.1',
  maxPayload: 1_048_576,
  cluster: undefined,
  domain: undefined,
  account: value({ storage: 1, maxStorage: 100, streams: 9, maxStreams: -1, consumers: 5, maxConsumers: -1 }),
  user: value({ user: 'ops', account: 'A', expiresInMs: undefined, publish: PUBLISH }),
  monitor: value({ syncAlways: true, syncIntervalMs: 120_000, storage: 1, maxStorage: 100, slowConsumers: 0 }),
  clock: value({ offsetMs: 3, vagueMs: 1 }),
  certificate: value({ endsInMs: 90 * DAY }),
  denied: [],
}

describe('findings about the server', () => {
  it('are none where all is well', () => {
    expect(wrong(serverFindings(SERVER))).toEqual([])
  })

  const account = { storage: 1, maxStorage: 100, streams: 9, maxStreams: -1, consumers: 5, maxConsumers: -1 }
  const monitor = { syncAlways: true, syncIntervalMs: 120_000, storage: 1, maxStorage: 100, slowConsumers: 0 }
  it.each<[string, Partial<SeenServer>, string[]]>([
    ['an old version', { version: '2.11.0' }, ['error server.version']],
    ['small messages', { maxPayload: 1000 }, ['warn server.max_payload']],
    ['no monitoring port', { monitor: undefined }, ['unseen server.fsync']],
    ['a monitoring port that does not answer', { monitor: DENIED }, ['unseen server.fsync']],
    ['syncs now and then', { monitor: value({ ...monitor, syncAlways: false }) }, ['warn server.fsync']],
    ['a disk that is nearly full', { monitor: value({ ...monitor, storage: 80 }) }, ['warn server.storage']],
    ['slow consumers', { monitor: value({ ...monitor, slowConsumers: 2 }) }, ['warn server.slow_consumers']],
    ['an account that is full', { account: value({ ...account, storage: 95 }) }, ['error account.storage']],
    ['streams up to the limit', { account: value({ ...account, maxStreams: 9 }) }, ['error account.streams']],
    ['consumers near the limit', { account: value({ ...account, maxConsumers: 6 }) }, ['warn account.consumers']],
    ['an account that may not be seen', { account: DENIED }, ['unseen account.limits']],
    ['a clock that is behind', { clock: value({ offsetMs: -2500, vagueMs: 5 }) }, ['warn clock.offset']],
    ['a clock that is perhaps behind', { clock: value({ offsetMs: -2500, vagueMs: 900 }) }, []],
    ['a clock that is wrong', { clock: value({ offsetMs: HOUR, vagueMs: 5 }) }, ['error clock.offset']],
    [
      'nobody in particular',
      { user: value({ user: '', account: '$G', expiresInMs: undefined, publish: PUBLISH }) },
      ['warn user'],
    ],
    [
      'credentials that end soon',
      { user: value({ user: 'a', account: 'A', expiresInMs: DAY, publish: PUBLISH }) },
      ['warn user.expires'],
    ],
    [
      'credentials that last',
      { user: value({ user: 'a', account: 'A', expiresInMs: 90 * DAY, publish: PUBLISH }) },
      [],
    ],
    ['no TLS', { certificate: value(undefined) }, []],
    ['a certificate that ends soon', { certificate: value({ endsInMs: 20 * DAY }) }, ['warn server.certificate']],
    ['a certificate that has ended', { certificate: value({ endsInMs: -1 }) }, ['error server.certificate']],
    ['denied permissions', { denied: ['publish x'] }, ['warn user.denied']],
  ])('name %s', (_, seen, expected) => {
    expect(wrong(serverFindings({ ...SERVER, ...seen }))).toEqual(expected)
  })
})

describe('what a user may do', () => {
  it('follows from what it may publish, as the server matches subjects', () => {
    const may = (allow: string[] | undefined, subject: string, deny: string[] = []): boolean =>
      mayPublish({ allow, deny }, subject)
    expect(may(undefined, 'a.b')).toBe(true)
    expect(may([], 'a.b')).toBe(false)
    expect([may(['a.*'], 'a.b'), may(['a.*'], 'a.b.c'), may(['a.>'], 'a.b.c'), may(['a.>'], 'a')]).toEqual([
      true,
      false,
      true,
      false,
    ])
    expect([may(['>'], 'a'), may(['>'], 'a.b', ['a.*']), may(['a'], 'b')]).toEqual([true, false, false])
  })

  it('is named, and who may delete the log is warned of', () => {
    const [may] = abilityFindings('ns', { allow: ['ns.trigger.>', 'ns.log.*.run.*.requested'], deny: [] })
    expect(may?.says).toMatch(/^may start runs, send triggers; may not cancel runs, .*be an engine$/)
    expect(wrong(abilityFindings('ns', { allow: undefined, deny: [] }))).toEqual(['warn user.may_delete'])
    expect(wrong(abilityFindings('ns', { allow: undefined, deny: ['$JS.API.STREAM.DELETE.>'] }))).toEqual([])
  })
})

describe('findings about streams', () => {
  const STREAM: SeenStream = {
    bytes: 10,
    maxBytes: -1,
    messages: 1,
    maxMessages: -1,
    subjects: 1,
    consumers: 1,
    replicas: 3,
    storage: 'file',
    cluster: { leader: 'a', copies: [{ name: 'b', current: true, offline: false }] },
  }
  const found = (seen: Partial<SeenStream> | undefined, inCluster = true): string[] => {
    const look = value(seen && { ...STREAM, ...seen })
    return wrong(streamFindings({ streams: [{ name: 'S', look }], inCluster })).map((line) => line.replace(' (S)', ''))
  }

  it.each<[string, Partial<SeenStream> | undefined, string[]]>([
    ['nothing where all is well', {}, []],
    ['a stream that is gone', undefined, ['error stream']],
    ['memory storage', { storage: 'memory' }, ['error stream.storage']],
    ['a stream that is nearly full', { bytes: 85, maxBytes: 100 }, ['warn stream.room']],
    ['logs that have room', { bytes: 85, maxBytes: 64 * 1024 ** 2, dropsOldest: true }, []],
    ['logs that have hardly any', { bytes: 85, maxBytes: 4 * 1024 ** 2, dropsOldest: true }, ['warn stream.room']],
    ['triggers that pile up', { messages: 99, maxMessages: 100 }, ['error stream.room']],
    ['many subjects', { subjects: 9_000_000 }, ['warn stream.subjects']],
    ['many consumers', { consumers: 5000 }, ['warn stream.consumers']],
    ['a single copy in a cluster', { replicas: 1 }, ['warn stream.replicas']],
    ['no leader', { cluster: { leader: undefined, copies: [] } }, ['error stream.leader']],
    [
      'copies that are away, and behind',
      {
        cluster: {
          leader: 'a',
          copies: [
            { name: 'b', current: false, offline: true },
            { name: 'c', current: false, offline: false },
          ],
        },
      },
      ['warn stream.copies', 'warn stream.copies'],
    ],
  ])('name %s', (_, seen, expected) => {
    expect(found(seen)).toEqual(expected)
  })

  it('ask for no copies where there is no cluster, and restore a log and not a bucket', () => {
    expect(found({ replicas: 1, cluster: undefined }, false)).toEqual([])
    const advice = (name: string): string | undefined =>
      streamFindings({ streams: [{ name, look: value(undefined) }], inCluster: false })[0]?.advice
    expect(advice('ns_LOG_0')).toContain('backup')
    expect(advice('KV_ns_state_0')).toContain('flowstone setup')
  })
})

describe('findings about shards', () => {
  const still = { before: 10, after: 10, end: 10 }
  const SHARD: SeenShard = {
    shard: 0,
    engine: value('engine-1'),
    problem: value(undefined),
    state: value(still),
    feed: value(still),
    proof: value({ blocks: 3, bytes: 1000, lateMs: undefined }),
    history: value({ oldestMs: HOUR, facts: 5, waves: 1, oldestWaveMs: 60_000 }),
  }
  const two = value([
    { engine: 'a', active: [0] },
    { engine: 'b', active: [] },
  ])
  const history = { oldestMs: HOUR, facts: 5, waves: 1, oldestWaveMs: 60_000 }

  it.each<[string, Partial<SeenShard>, string[]]>([
    ['nothing where all is well', {}, []],
    ['no engine', { engine: value(undefined) }, ['error engine.active']],
    ['a log that was replaced', { problem: value({ code: 'log_changed', message: 'x' }) }, ['error engine.problem']],
    ['a state that does not move', { state: value({ before: 5, after: 5, end: 10 }) }, ['error engine.lag']],
    ['nothing of a state that moves', { state: value({ before: 5, after: 9, end: 10 }) }, []],
    ['a state that is far behind', { state: value({ before: 5, after: 9, end: 90_000 }) }, ['warn engine.lag']],
    ['a feed that does not move', { feed: value({ before: 0, after: 0, end: 10 }) }, ['error feed.lag']],
    ['what is in no block', { proof: value({ blocks: 3, bytes: 1000, lateMs: HOUR }) }, ['warn proof.lag']],
    ['nothing where there is no proof', { proof: value(undefined) }, []],
    ['a history that is gone', { history: value({ ...history, lost: 'it is gone' }) }, ['error history.lost']],
    ['what is not sealed', { history: value({ ...history, oldestMs: DAY }) }, ['warn history.sealing']],
    ['what is not purged', { history: value({ ...history, oldestWaveMs: 2 * DAY }) }, ['warn history.purge']],
    [
      'what cannot be archived',
      { history: value({ ...history, unarchived: { ageMs: HOUR, says: 'no bucket' } }) },
      ['warn history.archive'],
    ],
    ['an empty history', { history: value({ oldestMs: undefined, facts: 0, waves: 0, oldestWaveMs: undefined }) }, []],
    ['what may not be seen', { state: DENIED, history: DENIED }, ['unseen engine.lag', 'unseen history']],
  ])('name %s', (_, seen, expected) => {
    const lines = wrong(shardFindings([{ ...SHARD, ...seen }], two))
    expect(lines).toEqual(expected.map((line) => `${line} (shard 0)`))
  })

  it('name an engine that lacks a permission, which is no standby', () => {
    const denied = { engine: 'b', active: [], denied: 'the NATS user lacks the permission publish x' }
    const found = shardFindings([], value([{ engine: 'a', active: [0] }, denied]))
    expect(wrong(found)).toEqual(['error engine.denied (b)', 'warn engine.standby'])
    expect(found[0]?.says).toContain('publish x')
    expect(wrong(shardFindings([], value([denied])))).toEqual(['error engine.denied (b)', 'warn engine.standby'])
  })

  it('name a missing standby', () => {
    expect(wrong(shardFindings([], value([{ engine: 'a', active: [0] }])))).toEqual(['warn engine.standby'])
    expect(wrong(shardFindings([], value([])))).toEqual(['unseen engine.standby'])
    expect(wrong(shardFindings([], DENIED))).toEqual(['unseen engine.standby'])
  })
})

describe('findings about work', () => {
  const QUEUE: SeenConsumer = {
    shard: 0,
    name: 'q',
    run: undefined,
    pending: 0,
    ackPending: 0,
    redelivered: 0,
    waiting: 1,
  }
  const WORK: SeenWork = {
    consumers: value([QUEUE]),
    unmatched: value(0),
    open: value(new Set(['r'])),
    oldest: value([{ id: 'r', status: 'running', ageMs: HOUR, assets: ['queued', 'waiting'], queued: false }]),
    timers: value(['r']),
    triggers: value({ count: 3, oldestMs: 500 }),
    schedules: value([{ name: 'p/s', kind: 'schedule', paused: false, lateMs: 500, failures: 0 }]),
  }
  const run = { id: 'r', status: 'running', ageMs: HOUR, assets: ['materialized', 'waiting'], queued: false }
  const schedule = { name: 'p/s', kind: 'schedule', paused: false, lateMs: undefined, failures: 0 } as const

  it.each<[string, Partial<SeenWork>, string[]]>([
    ['nothing where all is well', {}, []],
    [
      'tasks of workers that died',
      { consumers: value([{ ...QUEUE, redelivered: 5 }]) },
      ['warn work.redelivered (q of shard 0)'],
    ],
    [
      'tasks without a worker',
      { consumers: value([{ ...QUEUE, pending: 5, waiting: 0 }]) },
      ['warn work.no_worker (q of shard 0)'],
    ],
    ['nothing where workers are busy', { consumers: value([{ ...QUEUE, pending: 5, waiting: 0, ackPending: 1 }]) }, []],
    ['tasks of other code', { unmatched: value(2) }, ['warn work.unmatched']],
    ['runs that nothing moves', { oldest: value([run]) }, ['error runs.stuck']],
    ['nothing of runs that are young', { oldest: value([{ ...run, ageMs: 1000 }]) }, []],
    [
      'runs that nobody planned',
      { oldest: value([{ ...run, status: 'requested', assets: [] }]) },
      ['error runs.stuck'],
    ],
    [
      'nothing of runs that wait for their turn',
      { oldest: value([{ ...run, status: 'requested', assets: [], queued: true }]) },
      [],
    ],
    ['old runs', { oldest: value([{ ...run, assets: ['suspended'], ageMs: 30 * DAY }]) }, ['warn runs.old']],
    ['queues of ended runs', { consumers: value([{ ...QUEUE, run: 'gone' }]) }, ['warn orphans.consumers']],
    ['timers of ended runs', { timers: value(['r', 'gone', 'gone']) }, ['warn orphans.timers']],
    ['no orphans where open runs may not be seen', { open: DENIED, timers: value(['gone']) }, ['unseen orphans']],
    ['triggers that wait', { triggers: value({ count: 3, oldestMs: HOUR }) }, ['error triggers.waiting']],
    ['schedules that are late', { schedules: value([{ ...schedule, lateMs: HOUR }]) }, ['error schedules.late (p/s)']],
    ['nothing of paused schedules', { schedules: value([{ ...schedule, lateMs: HOUR, paused: true }]) }, []],
    [
      'sensors that fail',
      { schedules: value([{ ...schedule, kind: 'sensor', failures: 3 }]) },
      ['warn schedules.failing (p/s)'],
    ],
  ])('name %s', (_, seen, expected) => {
    expect(wrong(workFindings({ ...WORK, ...seen }))).toEqual(expected)
  })
})

describe('findings about secrets', () => {
  const waiting = value([
    { keyId: 'k1', ageMs: HOUR },
    { keyId: 'k2', ageMs: 2 * HOUR },
    { keyId: 'k2', ageMs: HOUR },
  ])
  it('name secrets that are missing, that sign no more, and keys that expire', () => {
    expect(wrong(secretFindings({ gateKeys: [], waiting, apiKeys: [] }))).toEqual(['unseen secrets.gates'])
    expect(wrong(secretFindings({ gateKeys: ['k1', 'k2'], waiting, apiKeys: [] }))).toEqual([
      'warn secrets.waiting (secret k2)',
    ])
    expect(wrong(secretFindings({ gateKeys: ['k1'], waiting, apiKeys: [] }))).toEqual([
      'error secrets.waiting (secret k2)',
    ])
    const apiKeys = [
      { id: 'a', expiresInMs: undefined },
      { id: 'b', expiresInMs: -1 },
      { id: 'c', expiresInMs: 2 * DAY },
      { id: 'd', expiresInMs: 90 * DAY },
    ]
    expect(wrong(secretFindings({ gateKeys: ['k1'], waiting: value([]), apiKeys }))).toEqual([
      'warn secrets.api_key (API key b)',
      'warn secrets.api_key (API key c)',
    ])
  })
})

describe('a finding', () => {
  it('says what to do wherever it is not fine', () => {
    const [unseen] = ofLook({ check: 'x' }, { unseen: 'Permissions Violation for Publish' }, () => [])
    expect(unseen).toMatchObject({ level: 'unseen', says: expect.stringContaining('Permissions Violation') })
    expect(unseen?.advice).toContain('operator')
    expect(ofLook({ check: 'x' }, { unseen: 'no answer within 5 s' }, () => [])[0]?.advice).toContain('look again')
  })

  it('comes before those that are less bad', () => {
    const levels = ['ok', 'unseen', 'error', 'warn', 'error'] as const
    const all = levels.map((level, i) => ({ level, check: String(i), says: '' }))
    expect(worstFirst(all).map(({ check }) => check)).toEqual(['2', '4', '3', '1', '0'])
  })

  it('has ages and sizes that people can read', () => {
    expect([0, 1500, 120_000, 3 * HOUR, 5 * DAY].map(ageText)).toEqual(['0 s', '2 s', '2 min', '3 h', '5 d'])
    expect([0, 1023, 1536, 3 * 2 ** 30].map(bytesText)).toEqual(['0 B', '1023 B', '1.5 KB', '3.0 GB'])
  })
})
