/** What the folds of a scatter work with. */
import type { AssetSpec } from '../../streams/schemas.ts'
import type { RunState, View } from '../state.ts'
import type { Bits } from './bits.ts'

export interface ScatterContext {
  readonly view: View
  readonly run: RunState
  readonly spec: AssetSpec
}

/** A step of an open barrier. */
export interface BarrierContext extends ScatterContext {
  /** The segments that this step reads and writes. */
  readonly bits: Bits
}
