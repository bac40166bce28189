/**
 * How long to wait for what should come: as long as something happens, since nobody knows what else
 * the machine does.
 */
import { jetstreamManager } from '@nats-io/jetstream'
import type { Rig } from '../rig.ts'

const LOOK_MS = 1000
/** On a log on which nothing has been written for so long, nothing will be. */
const STILL_MS = 40_000

export class Patience implements Disposable {
  readonly #rig: Rig
  readonly #shards: number
  readonly #controller = new AbortController()
  readonly #timer: NodeJS.Timeout
  #last = ''
  #sinceMs = performance.now()

  constructor(rig: Rig, shards: number) {
    this.#rig = rig
    this.#shards = shards
    this.#timer = setInterval(() => void this.#look().catch(() => undefined), LOOK_MS)
  }

  /** Aborted when nothing has happened for a while. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  async #look(): Promise<void> {
    if (performance.now() - this.#sinceMs > STILL_MS) {
      clearInterval(this.#timer)
      this.#controller.abort(new Error(`nothing was written to the log for ${STILL_MS} ms`))
      return
    }
    const jsm = await jetstreamManager(this.#rig.nc, { checkAPI: false })
    const seqs: number[] = []
    for (let shard = 0; shard < this.#shards; shard++)
      seqs.push((await jsm.streams.info(this.#rig.names.log(shard))).state.last_seq)
    const last = seqs.join()
    if (last === this.#last) return
    this.#last = last
    this.#sinceMs = performance.now()
  }
}
