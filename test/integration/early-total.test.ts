/**
 * A scatter that ends early, while its end and its total cross: what its closing fact, its status,
 * its gather and its redrive say must be one thing.
 */
import { connect as connectNats, headers } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, type InstanceOptions, pipeline, type Run, TerminalError } from '../../src/index.ts'
import { encodeFact, type FactDraft, factPath } from '../../streams/facts.ts'
import { assetName, runId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

const limit = () => ({ signal: within(20_000) })
const kinds = async (stage: Stage, run: Run) => (await factsOf(stage.flow, run.id)).map(({ kind }) => kind)
const waitFor = (stage: Stage, run: Run, kind: string, count = 1) =>
  until(`${count} of ${kind} on the log`, async () => {
    return (await kinds(stage, run)).filter((one) => one === kind).length >= count
  })
const dataOf = async (stage: Stage, run: Run, kind: string) =>
  (await factsOf(stage.flow, run.id)).find((fact) => fact.kind === kind)?.data

/**
 * Three keys at once, the fourth when `rest` says so. Instances wait for `go`, and fail until
 * healed.
 */
function slowKeys(options: InstanceOptions) {
  const at = {
    healed: false,
    begun: Promise.withResolvers<void>(),
    go: Promise.withResolvers<void>(),
    rest: Promise.withResolvers<void>(),
    ran: [] as string[],
  }
  const work = asset('work', {
    scatterOptions: options,
    scatter: async function* () {
      yield* ['k0', 'k1', 'k2']
      await at.rest.promise
      yield 'k3'
    },
    execute: async ({ scatterKey, signal }) => {
      at.begun.resolve()
      if (!at.healed) {
        await at.go.promise
        if (options.failureMode !== undefined || scatterKey !== 'k1') throw new TerminalError(`bad ${scatterKey}`)
      }
      signal.throwIfAborted()
      at.ran.push(scatterKey)
      return `value of ${scatterKey}`
    },
  })
  return { work, at }
}

const all = ['k0', 'k1', 'k2', 'k3'].map((key) => ({ key, value: `value of ${key}` }))

describe('a scatter whose end is decided before the engine has read its total', () => {
  it.each<[string, InstanceOptions, ((stage: Stage, id: string) => Promise<void>)?]>([
    ['a failure', {}],
    ['its threshold', { failureMode: 'partial', failureThreshold: { count: 0 } }],
    ['a cancel', {}, (stage, id) => stage.flow.scatter.cancel(id)],
    ['its time limit', { totalTimeout: '2s' }],
  ])('by %s is redriven whole, and says the same in its end as in its status', async (how, options, act) => {
    const { work, at } = slowKeys(options)
    await using stage = await openStage(server.url, pipeline('slow_keys', [work]))
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    await at.begun.promise
    await stage.engine?.stop()
    if (act) await act(stage, id)
    else if (how === 'its time limit') await waitFor(stage, run, 'scatter.timer_fired')
    at.go.resolve()
    await waitFor(stage, run, 'scatter.outcomes')
    at.rest.resolve()
    await waitFor(stage, run, 'scatter.sized')
    await stage.flow.engine()
    await rejection(run.result(limit()))
    await waitFor(stage, run, 'scatter.closed')
    await until('the state shows the end', async () => (await stage.flow.scatter.status(id)).status !== 'open')
    const { total, succeeded, failed, redrivable, status } = await stage.flow.scatter.status(id)
    expect({ total, redrivable }).toEqual({ total: 4, redrivable: 4 - succeeded })
    expect(await dataOf(stage, run, 'scatter.closed')).toMatchObject({ status, total, succeeded, failed })
    at.healed = true
    const done = [...at.ran]
    const again = await stage.flow.scatter.redrive(id)
    expect(await again.result(limit())).toEqual(all)
    // What was stored before the end is not run again.
    expect(at.ran.slice(done.length).toSorted()).toEqual(all.map(({ key }) => key).filter((key) => !done.includes(key)))
  })

  it('a scatter whose end is decided before the engine has read its total is not redriven when it ends before its keys are all known, and never gathers less', async () => {
    const { work, at } = slowKeys({})
    await using stage = await openStage(server.url, pipeline('unknown_total', [work]))
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    await at.begun.promise
    at.go.resolve()
    await rejection(run.result(limit()))
    await until('the state shows the end', async () => (await stage.flow.scatter.status(id)).status === 'failed')
    expect(await stage.flow.scatter.status(id)).toMatchObject({ total: undefined, redrivable: 0 })
    expect(await rejection(stage.flow.scatter.redrive(id))).toMatchObject({ code: 'not_redrivable' })
    expect((await collect(stage.flow.scatter.failures(id))).length).toBeGreaterThan(0)
    // Whoever asks for it all the same is refused by the worker that would read the keys.
    const forged = runId(0, 'forged')
    const asked = (await dataOf(stage, run, 'run.requested')) as Extract<FactDraft, { name: 'run.requested' }>['data']
    const data = { ...asked, key: 'forged', redrive: { run: run.id, asset: 'work', total: 1 } }
    await append(stage, { name: 'run.requested', ids: { run: forged }, data })
    const error = await rejection(stage.flow.run(forged).result(limit()))
    expect(error.message).toContain('before all of its keys were known')
    at.rest.resolve()
  })
})

/** Puts a fact on the log as a process would that was late. */
async function append(stage: Stage, draft: FactDraft): Promise<void> {
  const nc = await connectNats({ servers: server.url })
  const { payload, contentType } = encodeFact(draft)
  const header = headers()
  header.set('Content-Type', contentType)
  await nc.request(namesOf(stage.namespace).fact(0, factPath(draft.name, draft.ids)), payload, {
    headers: header,
    timeout: 5000,
  })
  await nc.close()
}

describe('the error of an instance that failed', () => {
  it('the error of an instance that failed is the one that counted, whatever late workers say: in the gather, in the list and in the status', async () => {
    const open = Promise.withResolvers<void>()
    const work = asset('work', {
      retry: { maxAttempts: 2, backoff: '10ms' },
      scatterOptions: { failureMode: 'partial', failureThreshold: 1 },
      scatter: () => [0, 1, 2],
      execute: async ({ scatterKey, attempt }) => {
        if (scatterKey === 2) await open.promise
        if (scatterKey > 0) throw new Error(`attempt ${attempt} of ${scatterKey}`)
        return scatterKey
      },
      gather: async (results) => {
        const list: string[] = []
        for await (const result of results)
          list.push(result.status === 'ok' ? `ok ${result.value}` : `${result.error.code}: ${result.error.message}`)
        return list
      },
    })
    await using stage = await openStage(server.url, pipeline('late_errors', [work]))
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    await until('one has failed', async () => (await stage.flow.scatter.status(id)).failed === 1)
    const ids = { run: run.id, asset: assetName('work') }
    const late = (lease: string, index: number, ordinal: number): FactDraft => ({
      name: 'scatter.outcomes',
      ids,
      data: {
        lease,
        ordinal,
        worker: 'thought-dead',
        at: [index],
        ms: [1],
        values: [null],
        errors: [[0, { error: { code: 'late', message: `late word of ${index}` }, outcome: 'terminal' }]],
      },
    })
    await append(stage, late('0-3-1', 1, 1))
    await append(stage, late('1-2-2', 1, 2))
    // Another whose first attempt failed by itself, and whose second one lost its worker.
    open.resolve()
    const wanted = ['ok 0', 'error: attempt 2 of 1', 'error: attempt 2 of 2']
    expect(await run.result(limit())).toEqual(wanted)
    const failures = await collect(stage.flow.scatter.failures(id))
    expect(failures.map(({ index, error }) => `${index} ${error.code}: ${error.message}`)).toEqual([
      '1 error: attempt 2 of 1',
      '2 error: attempt 2 of 2',
    ])
    await until('the state shows the end', async () => (await stage.flow.scatter.status(id)).status !== 'open')
    expect((await stage.flow.scatter.status(id)).error).toEqual({ code: 'error', message: 'attempt 2 of 1' })
  })

  it('the error of an instance that failed is the loss of its worker where that was its last attempt, and not the error of an earlier one', async () => {
    const begun = Promise.withResolvers<void>()
    const hang = Promise.withResolvers<void>()
    const work = asset('work', {
      retry: { maxAttempts: 2, backoff: '10ms' },
      scatterOptions: { failureMode: 'partial', failureThreshold: 1 },
      scatter: () => ['k'],
      execute: async ({ attempt }) => {
        if (attempt === 1) throw new Error('by itself')
        begun.resolve()
        await hang.promise
      },
      gather: async (results) => {
        for await (const result of results) return result.status === 'ok' ? 'ok' : result.error
        return 'none'
      },
    })
    await using stage = await openStage(server.url, pipeline('lost_last', [work]))
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    const ids = { run: run.id, asset: assetName('work') }
    await begun.promise
    // Twice: beside others nobody is to blame, and the last attempt is run once more, alone.
    for (const lease of ['0-1-2', '0-1-3'])
      await append(stage, {
        name: 'lease.lost',
        ids: { ...ids, lease },
        data: { lease, worker: 'gone' },
      })
    const error = { code: 'worker_lost', message: 'the worker died while it ran instance 0, attempt 2' }
    expect(await run.result(limit())).toEqual(error)
    expect(await collect(stage.flow.scatter.failures(id))).toEqual([{ index: 0, key: 'k', error, attempts: 2 }])
    hang.resolve()
  })
})
