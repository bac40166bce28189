/** What an archive is made of: parts of runs. */
import type { SealedFact } from '../../../streams/history.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'

export interface PieceSource {
  readonly connection: Connection
  readonly names: Names
}

/** What is known of a run at a time. `run.<id>` is among the documents of its first piece. */
export interface Piece {
  readonly shard: number
  readonly run: string
  readonly docs: Readonly<Record<string, unknown>>
  readonly facts: readonly SealedFact[]
}

/** Which runs are wanted, by what their requests say. */
export interface Wanted {
  readonly sinceMs: number
  readonly untilMs: number
  /** Undefined: of all. */
  readonly pipelines: ReadonlySet<string> | undefined
  /** Also runs that have not ended. */
  readonly open: boolean
}
