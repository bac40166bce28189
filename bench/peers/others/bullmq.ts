/**
 * BullMQ: a flow of a parent with a child for each instance, whose parent counts their values.
 * Three steps are three queues, each of whose jobs adds the next one, under an id of its own so
 * that a repeated step adds it once. The caller hears of the end through the events of the last
 * queue.
 */
import { FlowProducer, Queue, QueueEvents, Worker } from 'bullmq'
import { instanceKey, instanceValue } from '../../payload.ts'
import type { Works } from '../peer.ts'
import { startRedis } from '../servers.ts'

/** Each was quicker than less and than more. */
const CONCURRENCY = { instances: 200, steps: 50 }

export async function begin(appendfsync: string): Promise<Works> {
  await using stack = new AsyncDisposableStack()
  const redis = stack.use(await startRedis(appendfsync))
  const connection = { host: '127.0.0.1', port: Number(new URL(redis.url).port) }
  const closing = <C extends { close(): Promise<void> }>(opened: C): C => stack.adopt(opened, (it) => it.close())
  const flows = closing(new FlowProducer({ connection }))
  const [first, second, third] = ['first', 'second', 'third'].map((name) => closing(new Queue(name, { connection })))
  if (!first || !second || !third) throw new Error('three queues')
  const work = async (queue: string, run: (data: { id: string }) => Promise<unknown>): Promise<void> => {
    const concurrency = queue === 'instances' ? CONCURRENCY.instances : CONCURRENCY.steps
    const processor = async (job: { data: { id: string } }): Promise<unknown> => await run(job.data)
    await closing(new Worker(queue, processor, { connection, concurrency })).waitUntilReady()
  }
  await work('first', async ({ id }) => {
    await second.add('second', { id }, { jobId: `${id}-second` })
    return instanceValue(1)
  })
  await work('second', async ({ id }) => {
    await third.add('third', { id }, { jobId: id })
    return instanceValue(2)
  })
  await work('third', async () => instanceValue(3))
  await work('instances', async () => instanceValue(1))
  const gather = new Worker('gather', async (job) => Object.keys(await job.getChildrenValues()).length, { connection })
  await closing(gather).waitUntilReady()
  const gathers = closing(new QueueEvents('gather', { connection }))
  const ends = closing(new QueueEvents('third', { connection }))
  await Promise.all([gathers, ends].map((events) => events.waitUntilReady()))
  const waiting = new Map<string, () => void>()
  ends.on('completed', ({ jobId }) => waiting.get(jobId)?.())
  let runs = 0
  const open = stack.move()
  return {
    version: redis.version,
    async fanOut(n) {
      const children = Array.from({ length: n }, (_, i) => ({
        name: 'instance',
        queueName: 'instances',
        data: instanceKey(i),
      }))
      const { job } = await flows.add({ name: 'gather', queueName: 'gather', children })
      return await job.waitUntilFinished(gathers)
    },
    async threeSteps() {
      const id = `run-${++runs}`
      const ended = new Promise<void>((resolve) => waiting.set(id, resolve))
      await first.add('first', { id }, { jobId: `${id}-first` })
      await ended
      waiting.delete(id)
    },
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  }
}
