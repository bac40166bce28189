/** What the folds of a barrier work with. */
import type { AssetSpec } from '../../streams/schemas.ts'
import type { RunState, View } from '../state.ts'
import type { Bits } from './bits.ts'

export interface BarrierContext {
  readonly view: View
  /** The segments that this step reads and writes, taken from the view once and put back once. */
  readonly bits?: Bits
  readonly run: RunState
  readonly spec: AssetSpec
}
