/**
 * Workers tell who asks what of a scatter they run at this moment. The log knows which instances
 * are in leases; whether a lease lies on the queue or in somebody's hands, and which of its
 * instances run, only the workers know. An answer is a hint: nothing is decided by it.
 */
import type { Msg, Subscription } from '@nats-io/nats-core'
import { z } from 'zod'
import { decode, encodeJson } from '../../../streams/codec.ts'
import type { Task } from '../../../streams/tasks.ts'
import { inboxOf } from '../../log/ask.ts'
import type { Connection } from '../../log/connection.ts'
import { listen } from '../../log/listen.ts'
import type { Code } from '../attempt/code.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import { loopDelayMs, measureLoopDelay } from './loop-delay.ts'

const OLDEST = 5
const ASSETS = 20
/**
 * Workers answer within milliseconds unless their code holds up the process; who does not within
 * this time is not counted.
 */
const FIRST_MS = 250
/** After an answer, others are waited for so long. */
const NEXT_MS = 30

/** With an empty `run`: about the worker alone. */
const question = z.object({ run: z.string(), asset: z.string() })

const answer = z.object({
  worker: z.string(),
  queues: z.array(z.string()),
  /** Pieces of code that may run at a time, and how many more there is room for. */
  slots: z.int(),
  free: z.int(),
  /** Instances of the scatter that run now. */
  running: z.int(),
  /** Those that run longest: index, and since when by the server's clock. */
  oldest: z.array(z.tuple([z.int(), z.number()])),
  /** Versions of the pipeline that it has, and shapes of the asset (streams/shape.ts). */
  versions: z.array(z.string()),
  shapes: z.array(z.string()),
  /**
   * Executions of the asset that it holds, and what each waits for before its code begins; by the
   * server's clock.
   */
  attempts: z.array(
    z.object({
      attempt: z.int(),
      waits: z
        .object({
          for: z.enum(['room', 'alone', 'slot', 'rate']),
          bucket: z.string().optional(),
          untilMs: z.number().optional(),
        })
        .optional(),
    }),
  ),
  /** About the worker alone: the longest delay of its event loop lately; assets that it holds. */
  loopDelayMs: z.number().optional(),
  assets: z.array(z.string()).optional(),
  /** It takes nothing more, and ends when what runs has ended. */
  isDraining: z.boolean().optional(),
})
export type WorkerAnswer = z.infer<typeof answer>

/** Has a worker answer for each of its pipelines. */
export function answerStatusRequests(
  shared: WorkerShared,
  held: ReadonlyMap<string, InFlightTask>,
  queuesOf: ReadonlyMap<string, ReadonlySet<string>>,
  code: Code,
  isDraining: () => boolean,
): Subscription[] {
  const { connection, names, slots, clock, id } = shared
  measureLoopDelay()
  return [...queuesOf].map(([pipeline, queues]) =>
    listen(connection.nc, names.workerStatus(pipeline), (message) => {
      const asked = question.safeParse(decode(message.data, undefined)).data
      if (!asked) return
      const instances = runningOf(held, asked.run, asked.asset)
      const ageOf = performance.now() - clock.now()
      const reported: WorkerAnswer = {
        worker: id,
        queues: [...queues],
        slots: slots.size,
        free: slots.free,
        running: instances.length,
        oldest: instances
          .sort(([, a], [, b]) => a - b)
          .slice(0, OLDEST)
          .map(([index, begunMs]) => [index, Math.round(begunMs - ageOf)]),
        versions: code.versionsOf(pipeline),
        shapes: code.shapesOf(pipeline, asked.asset),
        attempts: attemptsOf(held, asked.run, asked.asset, ageOf),
        ...(asked.run === ''
          ? { loopDelayMs: loopDelayMs(), assets: assetsOf(held, pipeline), isDraining: isDraining() }
          : {}),
      }
      message.respond(encodeJson(reported))
    }),
  )
}

function assetsOf(held: ReadonlyMap<string, InFlightTask>, pipeline: string): string[] {
  const own = [...held.values()].filter(({ task }) => task.pipeline === pipeline)
  return [...new Set(own.map(({ task }) => task.asset))].toSorted().slice(0, ASSETS)
}

function attemptsOf(
  held: ReadonlyMap<string, InFlightTask>,
  run: string,
  asset: string,
  ageOf: number,
): WorkerAnswer['attempts'] {
  return [...held.values()].flatMap(({ task, waits }) => {
    if (task.run !== run || task.asset !== asset || !isAttempt(task)) return []
    if (!waits) return [{ attempt: task.attempt }]
    const until = 'untilMs' in waits ? { untilMs: Math.round((waits.untilMs ?? 0) - ageOf) } : {}
    return [{ attempt: task.attempt, waits: { ...waits, ...until } }]
  })
}

function isAttempt({ kind }: Task): boolean {
  return kind !== 'lease' && kind !== 'resume' && kind !== 'reminder'
}

function runningOf(held: ReadonlyMap<string, InFlightTask>, run: string, asset: string): [number, number][] {
  return [...held.values()].flatMap(({ task, running }) =>
    task.kind === 'lease' && task.run === run && task.asset === asset ? [...running] : [],
  )
}

/**
 * What the workers of a pipeline say they do of a scatter. Empty when none is there, or none had
 * time to answer.
 */
export async function askWorkers(
  connection: Connection,
  subject: string,
  asked: { readonly run: string; readonly asset: string },
): Promise<WorkerAnswer[]> {
  const answers: WorkerAnswer[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  let timer = setTimeout(resolve, FIRST_MS)
  const { nc } = connection
  const inbox = inboxOf(nc)
  const onAnswer = (message: Msg): void => {
    // No responders: an empty message, at once.
    if (message.headers?.code === 503) {
      resolve()
      return
    }
    clearTimeout(timer)
    timer = setTimeout(resolve, NEXT_MS)
    const reported = answer.safeParse(decode(message.data, undefined)).data
    if (reported) answers.push(reported)
  }
  const subscription = listen(nc, inbox, onAnswer, () => resolve())
  try {
    nc.publish(subject, encodeJson(asked), { reply: inbox })
    await promise
  } finally {
    clearTimeout(timer)
    if (!connection.isClosed) subscription.unsubscribe()
  }
  return answers
}
