/** About 100 bytes in and 100 bytes out for each instance. */

const TEXT = 'The quick brown fox jumps over the lazy dog and runs away from it all.'

export interface InstanceKey {
  readonly id: string
  readonly text: string
}

export function instanceKey(i: number): InstanceKey {
  return { id: `item-${String(i).padStart(10, '0')}`, text: TEXT }
}

export function instanceValue(i: number): { readonly score: number; readonly text: string } {
  return { score: i / 3, text: TEXT }
}
