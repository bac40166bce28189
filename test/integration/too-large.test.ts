import { jetstream } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, InvalidError, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { testServer } from '../kit/server.ts'
import { openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const one = asset('one', { execute: () => 1 })
const waits = asset('waits', {
  execute: ({ signal }) =>
    new Promise<number>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
})
const spread = asset('spread', {
  scatter: () => [1, 2, 3],
  scatterOptions: { maxConcurrent: 1 },
  execute: ({ signal }) =>
    new Promise<number>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
  gather: () => 1,
})
const all = pipeline('large', [one, waits, spread])
const gates = { secrets: [{ id: 'k1', secret: 's'.repeat(32) }] }
const signal = (): AbortSignal => within(20_000)

/** Whether the engine works, and has not begun anew. */
async function expectWorking({ flow, lines }: Stage): Promise<void> {
  expect(await (await flow.materialize(one)).result({ signal: signal() })).toBe(1)
  expect(lines.filter((line) => line.includes('starts again'))).toEqual([])
}

describe.each([
  ['64 KiB', 64 * 1024],
  ['1 MiB', 1024 * 1024],
  ['8 MiB', 8 * 1024 * 1024],
])('with a max_payload of %s', (_, maxPayload) => {
  const server = useServer({ syncInterval: 'default', maxPayload })

  async function publish(subject: string, body: unknown): Promise<void> {
    const nc = await connectNats({ servers: server.url })
    await jetstream(nc).publish(subject, JSON.stringify(body))
    await nc.close()
  }

  it('texts of callers have bounds', async () => {
    await using stage = await openStage(server.url, all)
    const { flow } = stage
    const run = await flow.materialize(waits)
    const long = 'x'.repeat(2001)
    const refusals = [
      await rejection(run.cancel(long)),
      await rejection(flow.scatter.cancel(`${run.id}.spread`, long)),
      await rejection(flow.scatter.pause(`${run.id}.spread`, long)),
      await rejection(flow.gates.cancel(`${run.id}.waits.a1n1`, long)),
    ]
    for (const refusal of refusals) {
      expect(refusal).toBeInstanceOf(InvalidError)
      expect(refusal.message).toMatch(/reason must be text of at most 2000 characters/)
    }
    await run.cancel('x'.repeat(2000))
    expect(await rejection(run.result({ signal: signal() }))).toMatchObject({ code: 'cancelled' })
    await expectWorking(stage)
  })

  it('a reason that somebody put on the log himself, almost as large as a message may be, cancels its run', async () => {
    await using stage = await openStage(server.url, all)
    const { flow, namespace } = stage
    const run = await flow.materialize(waits)
    const shard = run.id.split('-')[0]
    const reason = 'x'.repeat(maxPayload - 700)
    await publish(`${namespace}.log.${shard}.run.${run.id}.cancel_requested`, {
      fact: 'run.cancel_requested',
      v: 1,
      reason,
    })
    expect(await rejection(run.result({ signal: signal() }))).toMatchObject({ code: 'cancelled' })
    await expectWorking(stage)
  })

  it('what fails for its data fails its run, and nobody else', async () => {
    await using stage = await openStage(server.url, all)
    const { flow, namespace } = stage
    const spec = (name: string, dependsOn: string[]) => ({
      name,
      dependsOn,
      queue: 'default',
      priority: 1,
      retry: { maxAttempts: 1, backoffMinMs: 1, backoffMaxMs: 1 },
      shape: 's',
    })
    const assets = [spec('a', ['b']), spec('b', ['c']), spec('c', ['b'])]
    await publish(`${namespace}.log.0.pipeline.cycle.1.registered`, {
      fact: 'pipeline.registered',
      v: 1,
      name: 'cycle',
      version: '1',
      assets,
    })
    const request = { fact: 'run.requested', v: 1, pipeline: 'cycle', version: '1', target: 'a', upstream: 'missing' }
    await publish(`${namespace}.log.0.run.0-cycle.requested`, request)
    const redrive = { run: 'no run id', asset: 'a', total: 1 }
    await publish(`${namespace}.log.0.run.0-redrive.requested`, { ...request, upstream: 'all', redrive })
    const far = { run: '9-x', asset: 'a', total: 1 }
    await publish(`${namespace}.log.0.run.0-far.requested`, { ...request, upstream: 'all', redrive: far })
    for (const id of ['0-cycle', '0-redrive', '0-far'])
      expect((await rejection(flow.run(id).result({ signal: signal() }))).message).toContain(`run ${id} failed`)
    await expectWorking(stage)
  })

  it('values of all sizes, many at a time, are kept; what is too large is refused where it is', async () => {
    const sizes = [8000, 9000, 16_000, 17_000, 40_000, 64_000, 66_000, 120_000, 700_000]
    // Control characters take six bytes each as JSON.
    const value = (bytes: number): string => '\u0001'.repeat(bytes)
    const together = Promise.withResolvers<void>()
    let begun = 0
    const burst = asset('burst', {
      retry: { maxAttempts: 1 },
      scatter: () => Array.from({ length: 90 }, (_, i) => i),
      execute: async ({ index }) => {
        begun += 1
        if (begun === 90) together.resolve()
        await together.promise
        return value(sizes[index % 9] ?? 0)
      },
      gather: async (results) => {
        const found: number[] = []
        for await (const {
          value: { length },
        } of results)
          found.push(length)
        return found
      },
    })
    const plain = sizes.map((bytes) => asset(`plain-${bytes}`, { execute: () => value(bytes) }))
    const last = asset('last', { dependsOn: [burst, ...plain], execute: (_ctx, deps) => deps.burst })
    const limitOf = Math.min(200 * 1024, maxPayload / 4)
    const wide = asset('wide', { scatter: () => ['ok', 'x'.repeat(limitOf)], execute: () => 1 })
    const sized = pipeline('sized', [burst, ...plain, last, wide])
    await using stage = await openStage(server.url, [all, sized], { worker: { concurrency: 100 } })
    const run = await stage.flow.materialize(last)
    expect(await run.result({ signal: within(40_000) })).toEqual(Array.from({ length: 90 }, (_, i) => sizes[i % 9]))
    const refused = await rejection((await stage.flow.materialize(wide)).result({ signal: signal() }))
    expect(refused.message).toContain(`key[1] takes`)
    expect(refused.message).toContain(`a key is at most ${limitOf}`)
    await expectWorking(stage)
  })

  it('metadata and payload of a gate, and references of I/O managers, have bounds', async () => {
    const asks = asset('asks', { execute: (ctx) => ctx.signalGate({ metadata: { text: 'm'.repeat(16_000) } }) })
    let refBytes = 16_000
    const kept = asset('kept', { io: 'kept', retry: { maxAttempts: 1 }, execute: () => 'kept' })
    const io = {
      store: async () => ({ at: 'r'.repeat(refBytes) }),
      load: async () => 'kept',
    }
    await using stage = await openStage(server.url, [all, pipeline('told', [asks, kept])], { io: { kept: io }, gates })
    const { flow } = stage
    const run = await flow.materialize(asks)
    await until('it waits', async () => (await flow.gates.list(run.id))[0]?.status === 'waiting')
    await flow.gates.signalById((await flow.gates.list(run.id))[0]?.id ?? '', 'p'.repeat(60_000))
    expect(await run.result({ signal: signal() })).toBe('p'.repeat(60_000))

    expect(await (await flow.materialize(kept, { key: 'small' })).result({ signal: signal() })).toBe('kept')
    refBytes = 17_000
    const refused = await rejection((await flow.materialize(kept, { key: 'large' })).result({ signal: signal() }))
    expect(refused.message).toContain('I/O manager kept: a reference takes at most 16384 bytes as JSON')
    await expectWorking(stage)
  })

  it('keys, values, outcomes and runs of many assets fit the messages that there may be', async () => {
    const length = 60_000
    const text = 'ü'.repeat(length / 20)
    const many = asset('many', {
      scatter: () => Array.from({ length: 300 }, (_, i) => ({ i, text })),
      execute: ({ scatterKey }) => `${scatterKey.i}${text}`,
      gather: async (results) => {
        let sum = 0
        for await (const { value } of results) sum += value.length
        return sum
      },
    })
    const large = asset('large', { execute: () => 'ü'.repeat(length) })
    const wide = Array.from({ length: 250 }, (_, i) => asset(`w${i}-${'n'.repeat(20)}`, { execute: () => i }))
    const last = asset('last', {
      dependsOn: [large, many, ...wide.slice(0, 30)],
      execute: (_, deps) => deps.large.length,
    })
    const big = pipeline('big', [many, large, ...wide, last])
    await using stage = await openStage(server.url, [all, big], { worker: { concurrency: 20 } })
    const run = await stage.flow.materialize(last)
    expect(await run.result({ signal: within(25_000) })).toBe(length)
    await until('it is folded', async () => (await run.status())?.status === 'succeeded')
    await expectWorking(stage)
  })
})

it('a pipeline that takes more than a message holds is refused before anything of it is stored', async () => {
  const server = await testServer({ syncInterval: 'default', maxPayload: 64 * 1024 })
  const wide = Array.from({ length: 600 }, (_, i) => asset(`w${i}`, { execute: () => i }))
  await using stage = await openStage(server.url, all)
  const refused = await rejection(stage.flow.worker(pipeline('wide', wide)))
  expect(refused).toBeInstanceOf(InvalidError)
  expect(refused.message).toMatch(/^pipeline wide: its 600 assets take \d+ bytes to register, and a message of this/)
  await server.stop()
})
