/** What the parts of a worker share. */
import type { Names } from '../../../streams/subjects.ts'
import type { Task } from '../../../streams/tasks.ts'
import type { AnyAsset, InstanceContext, Resources } from '../../define/asset-type.ts'
import type { ApprovalOptions, ChildRun, GateOptions, OpenedGate, Suspension } from '../../define/gates.ts'
import type { ChildOptions } from '../../define/run-options.ts'
import type { Refusals } from '../../gates/refused.ts'
import type { GateSettings } from '../../gates/settings.ts'
import type { Io } from '../../io/manager.ts'
import type { Limiter } from '../../limiter/limiter.ts'
import type { Appender } from '../../log/appender.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import { writeNow } from '../../log/one-write.ts'
import { BoundLog, type RunLog, type RunLogs, type TaskLogs } from '../../logs/run-log.ts'
import type { Logger } from '../../telemetry.ts'
import { traceparentOf } from '../../tracing.ts'
import type { Helper } from '../control/helper.ts'
import type { ChildDeps } from '../gates/children.ts'
import { type Execution, fail, GateOpener } from '../gates/opener.ts'
import type { Slots } from '../pull/slots.ts'
import type { LimitWaiters } from './limits.ts'
import type { SignalSource } from './run-code.ts'
import type { Values } from './values.ts'

export interface WorkerShared {
  readonly id: string
  readonly connection: Connection
  readonly names: Names
  readonly clock: ServerClock
  readonly io: Io
  readonly values: Values
  readonly logger: Logger
  readonly logs: RunLogs
  /** Whose process this is: what stands in `pipeline.registered`. */
  readonly by: string | undefined
  readonly resources: Resources
  readonly slots: Slots
  /** Of each limited queue that this worker holds leases of: as many places as leases. */
  readonly places: Map<string, Slots>
  readonly limiter: Limiter
  readonly gates: GateSettings
  readonly refusals: Pick<Refusals, 'add'>
  readonly children: ChildDeps
  readonly waiters: LimitWaiters
  readonly logOf: (shard: number) => Appender
  readonly workOf: (shard: number) => Appender
  /** Whether it takes no more work. */
  readonly isDraining: () => boolean
  /** The thread beside this one; none before the worker has started. */
  helper: Helper | undefined
}

/**
 * Code of users is called now: it may hold up the event loop. What is to be sent is sent before,
 * and the helper thread knows whose code it is.
 */
export function codeBegins({ connection, helper }: WorkerShared, slot: number): void {
  writeNow(connection.nc)
  helper?.calls(slot)
}

export function codeEnds({ helper }: WorkerShared): void {
  helper?.calls(-1)
}

/** Code that is no instance never looks at the key and the index; its type does not know them. */
export function contextOf(
  shared: WorkerShared,
  task: Task,
  asset: AnyAsset,
  source: SignalSource,
  key: string,
  opener: GateOpener,
  logs: TaskLogs,
): InstanceContext<unknown> {
  return {
    runId: task.run,
    asset: asset.name,
    partition: task.partition,
    attempt: task.attempt,
    idempotencyKey: key,
    get signal() {
      return source.signal
    },
    log: new BoundLog(logs),
    get traceparent() {
      return traceparentOf({ namespace: shared.names.ns, run: task.run, trace: task.trace })
    },
    resources: shared.resources,
    signalGate: opener.signal,
    approval: opener.approval,
    openGate: (options) => opener.open(options, source),
    openApproval: (options) => opener.openApproval(options, source),
    run: opener.run,
    fail,
    scatterKey: undefined,
    index: 0,
  }
}

/**
 * The gates that the instances of one task open. Most open none, so an opener is made when it is
 * asked for.
 */
export class InstanceGates {
  readonly #shared: WorkerShared
  readonly #at: (index: number) => Execution
  readonly #openers = new Map<number, GateOpener>()

  constructor(shared: WorkerShared, at: (index: number) => Execution) {
    this.#shared = shared
    this.#at = at
  }

  of(index: number): GateOpener {
    let opener = this.#openers.get(index)
    if (!opener) {
      opener = new GateOpener(this.#shared, this.#at(index))
      this.#openers.set(index, opener)
    }
    return opener
  }

  /** The instance has brought a value. Throws as `GateOpener.checkValue`. */
  checkValue(index: number): void {
    if (this.#openers.size > 0) this.#openers.get(index)?.checkValue()
  }

  /**
   * The opener of an instance that has asked for one. It is forgotten: the instance has ended, or
   * waits.
   */
  take(index: number): GateOpener | undefined {
    if (this.#openers.size === 0) return undefined
    const opener = this.#openers.get(index)
    this.#openers.delete(index)
    return opener
  }
}

/** What the instances of a task have in common. */
export class InstancesOf {
  readonly task: Task
  readonly name: string
  readonly gates: InstanceGates
  readonly logs: TaskLogs
  readonly resources: Resources
  readonly namespace: string
  /** Their idempotency keys begin so. */
  readonly prefix: string

  constructor({ resources, names }: WorkerShared, task: Task, name: string, gates: InstanceGates, logs: TaskLogs) {
    this.task = task
    this.name = name
    this.gates = gates
    this.logs = logs
    this.resources = resources
    this.namespace = names.ns
    this.prefix = `${task.run}.${name}.`
  }
}

/**
 * As `contextOf`, for an instance. A class, because there is one for each instance: a literal with
 * a getter in it takes ten times as long to make.
 */
export class InstanceContextOf implements InstanceContext<unknown> {
  readonly runId: string
  readonly asset: string
  readonly partition: string | undefined
  readonly attempt: number
  /** No getter: a copy of the context must have it, too. */
  readonly idempotencyKey: string
  readonly log: RunLog
  readonly resources: Resources
  readonly scatterKey: unknown
  readonly index: number
  readonly fail = fail
  readonly #source: SignalSource
  readonly #of: InstancesOf

  constructor(of: InstancesOf, source: SignalSource, key: unknown, index: number) {
    const { task, name, logs, resources, prefix } = of
    this.runId = task.run
    this.asset = name
    this.partition = task.partition
    this.attempt = task.attempt
    this.idempotencyKey = prefix + index
    this.log = new BoundLog(logs, index, key)
    this.resources = resources
    this.scatterKey = key
    this.index = index
    this.#source = source
    this.#of = of
  }

  get traceparent(): string {
    const { namespace, task } = this.#of
    return traceparentOf({ namespace, run: task.run, trace: task.trace })
  }

  get signal(): AbortSignal {
    return this.#source.signal
  }

  get signalGate(): (options?: GateOptions) => Suspension {
    return this.#of.gates.of(this.index).signal
  }

  get approval(): (options: ApprovalOptions) => Suspension {
    return this.#of.gates.of(this.index).approval
  }

  get openGate(): (options?: GateOptions) => Promise<OpenedGate> {
    const opener = this.#of.gates.of(this.index)
    return (options) => opener.open(options, this.#source)
  }

  get openApproval(): (options: ApprovalOptions) => Promise<OpenedGate> {
    const opener = this.#of.gates.of(this.index)
    return (options) => opener.openApproval(options, this.#source)
  }

  get run(): <V>(target: AnyAsset | string, options?: ChildOptions) => ChildRun<V> {
    return this.#of.gates.of(this.index).run
  }
}
