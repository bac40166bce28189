/** Metrics of the namespace, as the server has them. */
import { violationIn } from '../../streams/denied.ts'
import { FlowStoneError, messageOf } from '../../streams/errors.ts'
import type { Load } from '../client/inspect/load.ts'
import type { ShardView } from '../client/inspect/workers.ts'
import type { Attributes, Sample, ServerMetric } from './catalog.ts'

/** What is read of a flow. */
export interface LoadedFlow {
  readonly inspect: {
    shards(): Promise<readonly ShardView[]>
    load(): Promise<Load>
  }
}

/** Whoever asks more often gets what was read last. */
const FRESH_MS = 1000
/** Whoever scrapes waits for some seconds, and wants what this process knows in any case. */
const PATIENCE_MS = 5000

export interface ServerReading {
  readonly samples: readonly Sample[]
  /** Why they are not all. */
  readonly problem?: string
}

export class ServerMetrics {
  readonly #flow: LoadedFlow
  #reading: Promise<ServerReading> | undefined
  #readMs = Number.NEGATIVE_INFINITY

  constructor(flow: LoadedFlow) {
    this.#flow = flow
  }

  /**
   * Never rejects: where the server cannot be read, one sample says so. Who may not read it has
   * none: the server is not to blame.
   */
  async read(): Promise<ServerReading> {
    if (!this.#reading || performance.now() - this.#readMs > FRESH_MS) {
      this.#readMs = performance.now()
      const unreadable = [sample('flowstone.server.readable', 0)]
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<ServerReading>((resolve) => {
        const problem = `no answer within ${PATIENCE_MS / 1000} s`
        timer = setTimeout(() => resolve({ samples: unreadable, problem }), PATIENCE_MS)
      })
      const read = this.#readNow().then(
        (samples): ServerReading => ({ samples }),
        (error: unknown): ServerReading => ({
          samples: isDenied(error) ? [] : unreadable,
          problem: messageOf(error),
        }),
      )
      this.#reading = Promise.race([read, late]).finally(() => clearTimeout(timer))
    }
    return await this.#reading
  }

  async #readNow(): Promise<Sample[]> {
    const [shards, load] = await Promise.all([this.#flow.inspect.shards(), this.#flow.inspect.load()])
    const { queues, unmatched, triggers, workers, streams } = load
    return [
      sample('flowstone.server.readable', 1),
      ...shards.flatMap(({ shard, engine, behind }) => [
        sample('flowstone.engine.claimed', engine === undefined ? 0 : 1, { shard }),
        sample('flowstone.engine.lag', behind, { shard }),
      ]),
      ...Object.entries(workers).map(([pipeline, count]) => sample('flowstone.workers', count, { pipeline })),
      ...queues.flatMap(({ pipeline, queue, waiting, inFlight, redelivered }) => [
        sample('flowstone.queue.depth', waiting, { pipeline, queue }),
        sample('flowstone.queue.in_flight', inFlight, { pipeline, queue }),
        sample('flowstone.queue.redelivered', redelivered, { pipeline, queue }),
      ]),
      sample('flowstone.queue.unmatched', unmatched),
      sample('flowstone.triggers.waiting', triggers),
      ...streams.flatMap(({ name: stream, bytes, maxBytes }) => [
        sample('flowstone.stream.size', bytes, { stream }),
        ...(maxBytes === undefined ? [] : [sample('flowstone.stream.limit', maxBytes, { stream })]),
      ]),
    ]
  }
}

function isDenied(error: unknown): boolean {
  return (error instanceof FlowStoneError && error.code === 'denied') || violationIn(error) !== undefined
}

function sample(name: ServerMetric, value: number, attributes: Attributes = {}): Sample {
  return { name, value, attributes }
}
