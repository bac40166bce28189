import type { AssetName, RunId } from '../../../streams/ids.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Io } from '../../io/manager.ts'
import type { Connection } from '../../log/connection.ts'
import type { Values } from '../attempt/values.ts'

export interface GatherSource {
  readonly connection: Connection
  readonly names: Names
  readonly io: Io
  readonly values: Values
  readonly shard: number
  readonly run: RunId
  readonly asset: AssetName
  /** Aborted when nobody wants the results any more. */
  readonly signal?: AbortSignal
}
