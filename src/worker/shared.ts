/** What the parts of a worker share. */
import type { Names } from '../../streams/subjects.ts'
import type { Task } from '../../streams/tasks.ts'
import type { AnyAsset, AssetContext, InstanceContext, Resources } from '../define/asset.ts'
import type { Io } from '../io/manager.ts'
import type { Appender } from '../log/appender.ts'
import type { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import type { Logger } from '../telemetry.ts'
import type { Slots } from './slots.ts'
import type { Values } from './values.ts'

export interface WorkerShared {
  readonly id: string
  readonly connection: Connection
  readonly names: Names
  readonly clock: ServerClock
  readonly io: Io
  readonly values: Values
  readonly logger: Logger
  readonly resources: Resources
  readonly slots: Slots
  readonly logOf: (p: number) => Appender
  readonly workOf: (p: number) => Appender
}

export function contextOf(
  shared: WorkerShared,
  task: Task,
  asset: AnyAsset,
  signal: () => AbortSignal,
  key: string,
): AssetContext {
  return {
    run: task.run,
    asset: asset.name,
    partition: task.partition,
    attempt: task.attempt,
    idempotencyKey: key,
    get signal() {
      return signal()
    },
    log: shared.logger,
    resources: shared.resources,
  }
}

/** As `contextOf`, for an instance. Not a copy of that: to copy a context would ask for its signal. */
export function instanceContextOf(
  shared: WorkerShared,
  task: Task,
  asset: AnyAsset,
  signal: () => AbortSignal,
  instance: { readonly key: unknown; readonly index: number },
): InstanceContext<unknown> {
  return {
    run: task.run,
    asset: asset.name,
    partition: task.partition,
    attempt: task.attempt,
    idempotencyKey: `${task.run}.${asset.name}.${instance.index}`,
    get signal() {
      return signal()
    },
    log: shared.logger,
    resources: shared.resources,
    scatterKey: instance.key,
    index: instance.index,
  }
}
