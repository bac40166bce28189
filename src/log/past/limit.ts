/** How far back: up to a sequence of a shard, or up to a time of the server. */
import type { Fact } from '../../../streams/facts.ts'

export type Limit = { readonly seq: number } | { readonly ms: number }

export function isWithin(limit: Limit, { seq, timeMs }: Pick<Fact, 'seq' | 'timeMs'>): boolean {
  return 'seq' in limit ? seq <= limit.seq : timeMs <= limit.ms
}
