/**
 * A process that ends in the middle of its work says so: the next one takes over at once, and only
 * what ended it has lost an attempt.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'
import { ends } from './programs/ends.ts'

const server = useServer({ syncInterval: 'default' })

const program = fileURLToPath(new URL('./programs/ends.ts', import.meta.url))

/** A worker in a process of its own, whose code ends it, or holds up its event loop. */
async function victim(namespace: string, how: string): Promise<ChildProcess & { readonly said: () => string }> {
  const child = spawn(process.execPath, [program], {
    env: { ...process.env, ENDS_HOW: how, ENDS_SERVER: server.url, ENDS_NAMESPACE: namespace },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let text = ''
  child.stdout?.on('data', (data: Buffer) => {
    text += data.toString()
  })
  child.stderr?.on('data', (data: Buffer) => {
    text += data.toString()
  })
  await until('the worker is ready', () => text.includes('ready'))
  return Object.assign(child, { said: () => text })
}

describe('a worker whose process ends by user code', () => {
  it.each([
    ['process.exit()', 'exit', 'its process ended by process.exit(3)'],
    ['a rejection that nobody handles', 'reject', 'a rejection that nobody handled: floating'],
    ['an exception that nobody catches', 'throw', 'an exception that nobody caught: in a timer'],
  ])(
    'as by %s, names the asset at fault, and hands the rest back at once',
    async (_, how, message) => {
      const { pipeline: shard, work, beside } = ends('fine')
      await using stage = await openStage(server.url, shard, { worker: false })
      const child = await victim(stage.namespace, how)
      const neighbour = await stage.flow.materialize(beside)
      await until('the neighbour runs', async () => (await neighbour.status())?.assets.beside?.status === 'running')
      const run = await stage.flow.materialize(work)
      await until('the process has ended', () => child.exitCode !== null)
      // Far below the 30 s of ackWait, after which anybody would notice.
      await until('both are to be done again', async () => {
        const [one, other] = [await run.status(), await neighbour.status()]
        return one?.assets.work?.attempt === 2 && other?.assets.beside?.attempt === 2
      })
      const errors = async (id: string): Promise<unknown[]> =>
        (await factsOf(stage.flow, id)).filter(({ kind }) => kind === 'attempt.ended').map(({ data }) => data)
      expect(await errors(run.id)).toMatchObject([
        { outcome: 'lost', error: { message: expect.stringContaining(message) } },
      ])
      expect(await errors(neighbour.id)).toMatchObject([{ outcome: 'returned' }])
      await stage.flow.worker(shard)
      expect(await run.result({ signal: within(20_000) })).toBe('fine')
      expect(await neighbour.result({ signal: within(20_000) })).toBe('fine')
    },
    100_000,
  )

  it('in an instance of a scatter charges that instance alone', async () => {
    const { pipeline: shard, spread } = ends('fine')
    await using stage = await openStage(server.url, shard, { worker: false })
    const child = await victim(stage.namespace, 'exit')
    const run = await stage.flow.materialize(spread)
    await until('the process has ended', () => child.exitCode !== null)
    await stage.flow.worker(shard)
    // The attempt that each instance was run with in the end.
    expect(await run.result({ signal: within(20_000) })).toMatchObject([1, 1, 2, 1].map((value) => ({ value })))
  })
})

describe('a worker whose event loop is held up for longer than ackWait', () => {
  it('a worker whose event loop is held up for longer than ackWait keeps its task, and says whose code it is, and others in its process keep theirs', async () => {
    const { pipeline: shard, other, work, aside } = ends('fine')
    await using stage = await openStage(server.url, [shard, other], { worker: false })
    const child = await victim(stage.namespace, 'block')
    const neighbour = await stage.flow.materialize(aside, { pipeline: other })
    await until('the neighbour runs', async () => (await neighbour.status())?.assets.aside?.status === 'running')
    const run = await stage.flow.materialize(work)
    // The neighbour's worker says what it has, and may be the first to speak.
    await until('it says so', () => child.said().includes(`by work (run ${run.id})`))
    // Anybody may send what is no question.
    await using nats = await connectNats({ servers: server.url })
    for (const text of ['', 'no question', 'null', '{"messages":7}', '{"messages":[null]}'])
      nats.publish(namesOf(stage.namespace).holders(shard.name), text, { reply: 'nobody' })
    await stage.flow.worker([shard, other], { ackWait: '1s' })
    expect(await run.result({ signal: within(30_000) })).toBe('blocked')
    expect(await neighbour.result({ signal: within(30_000) })).toBe('aside')
    for (const { id } of [run, neighbour])
      expect((await factsOf(stage.flow, id)).map(({ kind }) => kind)).not.toContain('attempt.ended')
    expect(child.said()).not.toContain('the helper thread')
    child.kill('SIGKILL')
  })
})
