/** A gate as the state has it. */
import { type GateState, type Key, stateKey } from '../../projections/state.ts'

/** `read`: a document, of the bucket or of memory. */
export async function storedGate(
  read: <D>(key: Key<D>) => Promise<D | undefined>,
  at: { readonly run: string; readonly asset: string; readonly gate: string },
): Promise<GateState | undefined> {
  return (await read(stateKey.gates(at)))?.gates[at.gate] ?? (await read(stateKey.gateAlone(at)))
}
