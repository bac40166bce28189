/** What is said of each kind of fact, and by which fact. */
import { expect, it } from 'vitest'
import { inputsOf } from '../../projections/run/plan.ts'
import { specOf } from '../../projections/state.ts'
import type { Why, WhyInput } from '../../projections/why/types.ts'
import { assetsOf, whyAsset, whyRun } from '../../projections/why/why.ts'
import { type Fact, type FactDraft, type FactName, factNames } from '../../streams/facts.ts'
import { fingerprintOf, hashOfValue } from '../../streams/fingerprint.ts'
import { assetName, type RunId, runId } from '../../streams/ids.ts'
import {
  cancel,
  type DraftOf,
  errored,
  keyChunk,
  leasesOn,
  materialized,
  paused,
  plainScatter,
  RUN,
  registered,
  requested,
  resumed,
  Sim,
  scatterStarted,
  sized,
  spec,
  split,
  startedAttempt,
  timerFired,
  workOff,
} from './harness.ts'
import { EXPECTED } from './why-expected.ts'

const OTHER = runId(0, 'other')
const GATE = 'a1n1'
const ids = (asset: string, run: RunId = RUN) => ({ run, asset: assetName(asset) })
const gate = (asset: string) => ({ ...ids(asset), gate: GATE })

const opened = (asset: string, data: object = {}): FactDraft[] => [
  {
    name: 'gate.created',
    ids: gate(asset),
    data: {
      kind: 'approval',
      attempt: 1,
      worker: 'w',
      retriesMs: [],
      afterRetries: 'fail',
      keyId: 'k',
      tokenHash: 'h',
      ...data,
    },
  },
  suspended(asset),
]
const suspended = (asset: string): FactDraft => ({
  name: 'asset.suspended',
  ids: { pipeline: 'p', ...ids(asset), attempt: '1' },
  data: { gate: GATE, worker: 'w' },
})
const resolved = (asset: string, data: object): FactDraft => ({
  name: 'gate.resolved',
  ids: gate(asset),
  data: { ...gate(asset), outcome: 'signaled', ...data },
})
const made = (asset: string, run: RunId, hash: string, attempt = 1): FactDraft => {
  const draft = materialized(asset, run, attempt)
  return { ...draft, data: { ...draft.data, hash } }
}

/** A run of the last of these assets, and what happens in it. */
function played(assets: Parameters<typeof registered>[0], drafts: readonly FactDraft[], options: object = {}): Sim {
  const sim = new Sim()
  sim.apply(registered(assets))
  sim.apply(requested(assets.at(-1)?.name ?? '', options))
  for (const draft of drafts) {
    sim.nowMs += 1000
    sim.apply(draft)
  }
  return sim
}

interface Told {
  readonly sim: Sim
  readonly input?: Partial<WhyInput>
  readonly asset?: string
  readonly run?: RunId
}

function explain({ sim, input = {}, asset, run = RUN }: Told): Why {
  const isOwn = (fact: Fact): boolean => Reflect.get(fact.ids, 'run') === run || fact.name === 'pipeline.registered'
  const all = { run, facts: sim.log.filter(isOwn), others: sim.log.filter((fact) => !isOwn(fact)), ...input }
  const found = asset === undefined ? whyRun(all) : whyAsset(all, asset)
  if (!found) throw new Error('there is no explanation')
  return found
}

const CASES: Record<string, Told> = {
  'attempts of each outcome': {
    sim: played(
      [spec('a', { retry: { maxAttempts: 9, backoffMinMs: 1000, backoffMaxMs: 1000 } })],
      [
        startedAttempt('a', 1),
        errored('a', 1),
        errored('a', 2, { outcome: 'timeout', durationMs: 90_000, error: { code: 'timeout', message: 'too slow' } }),
        errored('a', 3, { outcome: 'lost', error: { code: 'worker_lost', message: 'its worker died' } }),
        errored('a', 4, { outcome: 'returned', error: { code: 'returned', message: 'it stops' } }),
        startedAttempt('a', 5),
      ],
    ),
  },
  'an attempt that failed for good, and its cause': {
    sim: played(
      [spec('a'), spec('b', { dependsOn: ['a'] }), spec('c', { dependsOn: ['b'] })],
      [
        errored('a', 1, {
          outcome: 'terminal',
          error: { code: 'E_DB', message: 'no table', cause: { code: 'ENOENT', message: 'no file' } },
        }),
      ],
    ),
  },
  'many attempts': {
    sim: played(
      [spec('a', { retry: { maxAttempts: 20, backoffMinMs: 0, backoffMaxMs: 0 } })],
      Array.from({ length: 10 }, (_, n) => errored('a', n + 1)),
    ),
  },
  'a request that no engine has seen': { sim: played([spec('a')], []), input: { foldedTo: 1 } },
  'an approval that was asked more time for': {
    sim: played(
      [spec('a', { onSignal: true })],
      [
        ...opened('a', { deadlineMs: 1_700_000_100_000 }),
        {
          name: 'gate.extended',
          ids: { ...gate('a'), n: '1' },
          data: { why: 'request', deadlineMs: 1_700_000_200_000, timeouts: 0, by: 'cli:ana@host' },
        },
      ],
    ),
  },
  'an approval that was given': {
    sim: played(
      [spec('a', { onSignal: true })],
      [...opened('a'), resolved('a', { source: 'page' }), materialized('a', RUN, 2)],
    ),
    asset: 'a',
  },
  'a gate that nobody answered': {
    sim: played(
      [spec('a')],
      [...opened('a', { deadlineMs: 1_700_000_100_000 }), resolved('a', { outcome: 'timed_out' })],
    ),
  },
  'a gate that was cancelled': {
    sim: played([spec('a')], [...opened('a'), resolved('a', { outcome: 'cancelled', reason: 'not needed' })]),
  },
  'a run that waits for another one, which fails': {
    sim: played(
      [spec('made', { retry: { maxAttempts: 1, backoffMinMs: 0, backoffMaxMs: 0 } }), spec('a', { onRun: true })],
      [
        {
          name: 'child.requested',
          ids: gate('a'),
          data: { attempt: 1, worker: 'w', child: OTHER, request: { ...requested('made').data, parent: gate('a') } },
        },
        suspended('a'),
        { ...errored('made', 1), ids: { pipeline: 'p', ...ids('made', OTHER), attempt: '1' } },
      ],
    ),
  },
  'a run that its parent gave up': {
    sim: played(
      [spec('made'), spec('a', { onRun: true })],
      [
        {
          name: 'child.requested',
          ids: gate('a'),
          data: { attempt: 1, worker: 'w', child: OTHER, request: { ...requested('made').data, parent: gate('a') } },
        },
        suspended('a'),
        cancel('enough'),
      ],
    ),
    run: OTHER,
  },
  'a time limit of the run': {
    sim: played(
      [spec('a')],
      [startedAttempt('a', 1), { name: 'run.timer_fired', ids: { run: RUN }, data: { timeoutMs: 2000 } }],
      { timeoutMs: 2000 },
    ),
  },
  'somebody who cancelled the run': {
    sim: played(
      [spec('a'), spec('b', { dependsOn: ['a'] })],
      [{ ...cancel('no more'), data: { reason: 'no more', by: 'cli:ana@host' } } as FactDraft],
    ),
  },
  'keys that come': {
    sim: played([spec('s', { scatter: plainScatter })], [scatterStarted(), keyChunk(0, 30)]),
  },
  'a scatter that is paused': {
    sim: played([spec('s', { scatter: plainScatter })], [scatterStarted(), keyChunk(0, 30), sized(30), paused()]),
  },
  'a scatter that goes on': {
    sim: played(
      [spec('s', { scatter: plainScatter })],
      [scatterStarted(), keyChunk(0, 30), sized(30), paused(), resumed()],
    ),
  },
  'a scatter that takes too long': {
    sim: played(
      [spec('s', { scatter: plainScatter })],
      [scatterStarted(), keyChunk(0, 30), sized(30), timerFired(5000)],
    ),
  },
  'a scatter that is about to close': (() => {
    const sim = played(
      [spec('s', { scatter: plainScatter })],
      [scatterStarted(), keyChunk(0, 3), sized(3), timerFired(5000)],
    )
    const early = sim.facts('scatter.ended_early')[0]?.seq ?? 0
    return { sim, input: { facts: sim.log.filter(({ seq }) => seq <= early) } }
  })(),
  'a scatter that is cancelled': {
    sim: played(
      [spec('s', { scatter: plainScatter })],
      [
        scatterStarted(),
        keyChunk(0, 30),
        sized(30),
        { name: 'scatter.cancel_requested', ids: ids('s'), data: { reason: 'enough' } },
      ],
    ),
  },
  'failed instances': {
    sim: (() => {
      const scatter = { ...plainScatter, failureMode: 'partial', threshold: { count: 2 } } as const
      const sim = played(
        [spec('s', { scatter }), spec('t', { dependsOn: ['s'] })],
        [scatterStarted(), keyChunk(0, 30), sized(30)],
      )
      const lease = leasesOn(sim)[0]?.lease ?? ''
      sim.apply(split(lease, 'lost'))
      sim.work.delete(`${RUN}.s.${lease}`)
      workOff(sim, (index) => (index % 10 === 3 ? 'terminal' : 'ok'))
      return sim
    })(),
  },
  'a scatter that succeeds, and its gather': {
    sim: (() => {
      const scatter = { ...plainScatter, gather: true }
      const sim = played([spec('s', { scatter })], [scatterStarted(), keyChunk(0, 3), sized(3)])
      workOff(sim, () => 'ok')
      return sim
    })(),
  },
}

const EARLIER = runId(0, 'earlier')
const input = (json: unknown) => ({ input: { i: { json } } })
const graph = (codeVersion?: string, options: object = {}) => [
  spec('i', { input: { schema: {} } }),
  spec('a', { dependsOn: ['i'], ...(codeVersion === undefined ? {} : { codeVersion }), ...options }),
  spec('b', { dependsOn: ['a'] }),
  spec('t', { dependsOn: ['b'] }),
]

const PIPELINE = registered(graph()).data
const graphSpec = (name: string) => specOf(PIPELINE, name) ?? spec(name)

/** A run after an earlier one, which succeeded. */
function again(
  options: Parameters<typeof requested>[1],
  drafts: readonly FactDraft[] = [],
  v2?: ReturnType<typeof graph>,
): Sim {
  const sim = new Sim()
  sim.apply(registered(graph()))
  sim.apply(registered(v2 ?? graph(), 'p', 'v2'))
  sim.apply(requested('t', { run: EARLIER, ...input(1) }))
  const inputs = hashOfValue({ json: 1 })
  for (const [asset, dependency, hash] of [
    ['a', 'i', inputs],
    ['b', 'a', 'a1'],
    ['t', 'b', 'b1'],
  ] as const) {
    const { data, ...draft } = made(asset, EARLIER, `${asset}1`)
    const fingerprint = fingerprintOf(graphSpec(asset), { [dependency]: hash })
    const given = inputsOf(PIPELINE, asset, { i: inputs })
    sim.apply({ ...draft, data: { ...data, fingerprint, inputs: given } } as FactDraft)
  }
  sim.apply(requested('t', { ...input(1), ...options }))
  for (const draft of drafts) sim.apply(draft)
  return sim
}

Object.assign(CASES, {
  'a value that is there': { sim: again({ upstream: 'missing' }), asset: 'b' },
  'a value that is not there from this input': { sim: again({ upstream: 'missing', ...input(2) }), asset: 'b' },
  'a value that is current': { sim: again({ upstream: 'stale' }), asset: 'a' },
  'a value that was made of another input': { sim: again({ upstream: 'stale', ...input(2) }), asset: 'a' },
  'a value that was made of another value': {
    sim: again({ upstream: 'stale', ...input(2) }, [made('a', RUN, 'a2')]),
    asset: 'b',
  },
  'a value that was made by other code': {
    sim: again({ upstream: 'stale', version: 'v2' }, [], graph('2')),
    asset: 'a',
  },
  'an asset that is volatile': {
    sim: again({ upstream: 'stale', version: 'v2' }, [], graph(undefined, { volatile: true })),
    asset: 'a',
  },
  'an input': { sim: again({ upstream: 'all' }), asset: 'i' },
  'a run that takes all it needs': { sim: again({ upstream: 'none' }) },
  'a run that may make nothing else': {
    sim: played([spec('a'), spec('b', { dependsOn: ['a'] })], [], { upstream: 'none' }),
  },
  'a client with a key, in a partition, after a run that failed': {
    sim: again({ key: 'k', partition: 'p1', retryOf: EARLIER }),
  },
  'an occurrence of a schedule': {
    sim: again({ schedule: { name: 'nightly', occurrence: 'o', atMs: 1_700_000_000_000 } }),
    input: {
      others: [
        {
          name: 'schedule.fired',
          ids: { pipeline: 'p', schedule: 'nightly', occurrence: 'o' },
          data: { atMs: 1_700_000_000_000, run: RUN },
          shard: 0,
          seq: 7,
          timeMs: 1_700_000_000_000,
        },
      ],
    },
  },
  'a schedule by hand': {
    sim: again({ schedule: { name: 'nightly', occurrence: 'o', atMs: 1_700_000_000_000, by: 'trigger' } }),
  },
  'a schedule whose code is evaluated': {
    sim: again({ schedule: { name: 'nightly', occurrence: 'o', atMs: 1_700_000_000_000, evaluates: true } }),
  },
  'a sensor': { sim: again({ sensor: { name: 'files', evaluation: 3 } }) },
  'a subscription': {
    sim: again({ event: { subscription: 'orders', stream: 'ORDERS', seq: 12, msgId: 'm1', messages: 3 } }),
  },
  'a trigger': {
    sim: again({ trigger: { seq: 5, msgId: 'm2' } }),
    input: {
      others: [
        {
          name: 'trigger.received',
          ids: { trigger: '5-1' },
          data: { seq: 5, subject: 'p.t', payload: new Uint8Array() },
          shard: 0,
          seq: 6,
          timeMs: 1_700_000_000_000,
        },
      ],
    },
  },
  'a retry from an asset on': {
    sim: (() => {
      const sim = again({ retry: { run: EARLIER, from: 'b' }, retryOf: EARLIER })
      const earlier = { shard: 0, seq: 5 }
      const assets = [{ name: 'i' }, { name: 'a', reuse: earlier, from: { run: EARLIER, why: 'earlier_run' } }]
      const plan = { assets: [...assets, { name: 'b' }, { name: 't' }] } as DraftOf<'run.planned'>['data']
      sim.log.splice(
        sim.log.findIndex(({ name, ids }) => name === 'run.planned' && Reflect.get(ids, 'run') === RUN),
        1,
      )
      sim.log.push({ name: 'run.planned', ids: { run: RUN }, data: plan, shard: 0, seq: 99, timeMs: sim.nowMs })
      return sim
    })(),
    asset: 'b',
  },
  'a run behind another one of its key': {
    sim: again({ concurrency: { key: 'k', limit: 1, onConflict: 'queue' } }),
    input: { queued: { behind: [EARLIER] } },
  },
  'a run whose turn has come': {
    sim: again({ concurrency: { key: 'k', limit: 1, onConflict: 'queue' } }),
    input: {
      turn: {
        name: 'run.finished',
        ids: { run: EARLIER },
        data: { run: EARLIER, pipeline: 'p', target: 't', status: 'succeeded', durationMs: 1 },
        shard: 0,
        seq: 70,
        timeMs: 1_700_000_000_000,
      },
    },
  },
  'a run that went on with another version': {
    sim: again({}, [{ name: 'run.adopt_requested', ids: { run: RUN }, data: { version: 'v2' } }], graph('2')),
  },
} satisfies Record<string, Told>)

it.each(Object.entries(CASES))('the explanation of %s', (name, told) => {
  const why = explain(told)
  const { status, verdict, chain } = why
  const lines = [`${status}: ${verdict.text}`, ...chain.map(({ fact, text }) => `${fact.kind}: ${text}`)]
  expect(lines).toEqual(EXPECTED[name])
  const { turn, others = [] } = told.input ?? {}
  const all = [...told.sim.log, ...others, ...(turn ? [turn] : [])]
  for (const { fact } of [verdict, ...chain]) {
    expect(all.some(({ seq, name, timeMs }) => seq === fact.seq && name === fact.kind && timeMs === +fact.at)).toBe(
      true,
    )
  }
})

/** Kinds that no sentence rests on, by the reason. */
const NOT_SAID: readonly FactName[] = [
  // What they say stands in the sentence about another fact.
  ...(['gate.created', 'run.adopt_refused', 'gate.timer_fired', 'gate.deadline_closed', 'gate.correlated'] as const),
  ...(['scatter.items', 'scatter.begun', 'lease.returned', 'run.awaited', 'run.late'] as const),
  // They come before a run, and are not in the way that leads to one.
  ...(['subscription.taken', 'event.retried', 'event.refused', 'event.timer_fired', 'trigger.refused'] as const),
  ...(['schedule.due', 'schedule.skipped', 'schedule.missed', 'schedule.paused', 'schedule.resumed'] as const),
  ...(['schedule.triggered', 'schedule.backfill_requested'] as const),
  ...(['sensor.paused', 'sensor.resumed', 'sensor.triggered'] as const),
]

it('each kind of fact is said, or left out for a reason', () => {
  const said = new Set(Object.values(CASES).flatMap((told) => explain(told).chain.map(({ fact }) => fact.kind)))
  expect([...said, ...NOT_SAID].toSorted()).toEqual(factNames().toSorted())
})

function caseOf(name: string): Told {
  const found = CASES[name]
  if (!found) throw new Error(`there is no case ${name}`)
  return found
}

it('other runs that an explanation names can be asked for', () => {
  const runsOf = (name: string) => explain(caseOf(name)).runs
  expect(runsOf('a run that waits for another one, which fails')).toEqual([OTHER])
  expect(runsOf('a run that its parent gave up')).toEqual([RUN])
  expect(runsOf('a run behind another one of its key')).toEqual([EARLIER])
  expect(runsOf('a value that is current')).toEqual([EARLIER])
  expect(runsOf('many attempts')).toEqual([])
})

it('without the request nothing is explained, and no asset that is not planned', () => {
  const { sim } = caseOf('many attempts')
  const facts = sim.log.filter(({ name }) => name !== 'run.requested')
  expect(whyRun({ run: RUN, facts })).toBeUndefined()
  expect(whyAsset({ run: RUN, facts: sim.log }, 'nobody')).toBeUndefined()
  expect(assetsOf({ run: RUN, facts: sim.log })).toEqual(['a'])
})
