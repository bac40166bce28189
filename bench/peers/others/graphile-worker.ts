/**
 * graphile-worker, with the settings of its page on performance. It keeps no results and no jobs
 * that have ended: the gather is a job that is added when no instance is left in the database.
 * Three steps are three jobs, each of which adds the next. A job's end is written after its events,
 * so the last step and the gather write a row, which is the answer.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type JobHelpers, Logger, makeWorkerUtils, run, type TaskList } from 'graphile-worker'
import { instanceKey } from '../../payload.ts'
import type { Works } from '../peer.ts'
import { startPostgres } from '../servers.ts'

const LOOK_MS = 5

export async function begin(): Promise<Works> {
  await using stack = new AsyncDisposableStack()
  const postgres = stack.use(await startPostgres())
  const logger = new Logger(() => () => undefined)
  const preset = {
    worker: {
      connectionString: postgres.url,
      concurrentJobs: 24,
      maxPoolSize: 25,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      logger,
    },
  }
  const utils = stack.adopt(await makeWorkerUtils({ preset }), (it) => it.release())
  await utils.migrate()
  await utils.withPgClient((client) => client.query('create table ended (id text primary key)'))
  const waiting = new Map<string, () => void>()
  let instances = 0
  const end = async (id: unknown, { query }: JobHelpers): Promise<void> => {
    await query('insert into ended (id) values ($1) on conflict do nothing', [id])
    waiting.get(String(id))?.()
  }
  const taskList: TaskList = {
    instance: () => {
      instances += 1
    },
    gather: end,
    first: async (id, { addJob }) => void (await addJob('second', id)),
    second: async (id, { addJob }) => void (await addJob('third', id)),
    third: end,
  }
  stack.use(await run({ preset, taskList, noHandleSignals: true }))
  const isLeft = async (): Promise<boolean> => {
    const left = `select 1 from graphile_worker.jobs where task_identifier = 'instance' limit 1`
    return (await utils.withPgClient((client) => client.query(left))).rows.length > 0
  }
  const ended = async (task: 'gather' | 'first', id: string): Promise<void> => {
    const answered = new Promise<void>((resolve) => waiting.set(id, resolve))
    await utils.addJob(task, id)
    await answered
    waiting.delete(id)
  }
  let runs = 0
  const open = stack.move()
  return {
    version: postgres.version,
    async fanOut(n) {
      instances = 0
      await utils.addJobs(Array.from({ length: n }, (_, i) => ({ identifier: 'instance', payload: instanceKey(i) })))
      while (await isLeft()) await sleep(LOOK_MS)
      await ended('gather', `run-${++runs}`)
      return instances
    },
    threeSteps: () => ended('first', `run-${++runs}`),
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  }
}
