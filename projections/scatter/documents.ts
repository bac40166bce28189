/** The documents that a scatter has, besides its barrier. */
import { type Key, stateKey } from '../state.ts'
import { segmentOf } from './bits.ts'
import { CHUNKS_PER_LIST } from './feed.ts'
import { FAILURES_PER_CHUNK } from './instances.ts'
import type { BarrierState } from './state.ts'

export interface ScatterKeys {
  /** What says how it ended. Some of them may not be there. */
  readonly read: Key<unknown>[]
  /** What nobody reads once it is closed. */
  readonly unread: Key<unknown>[]
}

export function scatterKeys({ run, asset, stored, keyChunks, failed }: Readonly<BarrierState>): ScatterKeys {
  const upTo = <D>(last: number, key: (n: number) => Key<D>): Key<D>[] =>
    Array.from({ length: last + 1 }, (_, n) => key(n))
  const last = Math.max(0, stored - 1)
  return {
    read: [
      ...upTo(segmentOf(last), (n) => stateKey.segment(run, asset, n)),
      ...(failed > 0 ? upTo(Math.floor(last / FAILURES_PER_CHUNK), (n) => stateKey.failures(run, asset, n)) : []),
    ],
    unread: upTo(Math.floor(keyChunks / CHUNKS_PER_LIST), (n) => stateKey.keyChunks(run, asset, n)),
  }
}
