/**
 * The claim: which engine is at work on a log partition. A key with a time to live, renewed while at work, given up on a clean stop. It only saves work and
 * decides nothing: safety is the checkpoint's fence.
 */
import { encodeJson } from '../../streams/codec.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from '../log/connection.ts'
import { leaderGet, publish } from '../log/nats.ts'

export const CLAIM_TTL_MS = 2000
const RENEW_MS = 600

export class Claim {
  readonly #connection: Connection
  readonly #stream: string
  readonly #subject: string
  readonly #engine: string
  #revision = 0
  #timer: NodeJS.Timeout | undefined
  #endWait: (() => void) | undefined
  /** Called once, when the claim is found to be another engine's. */
  onLost: (() => void) | undefined

  constructor(connection: Connection, names: Names, p: number, engine: string) {
    this.#connection = connection
    this.#stream = names.kvStream(names.controlBucket)
    this.#subject = names.kvSubject(names.controlBucket, `claim.${p}`)
    this.#engine = engine
  }

  /** Tries once to become the engine at work. */
  async tryTake(): Promise<boolean> {
    const found = await leaderGet(this.#connection.nc, this.#stream, { last_by_subj: this.#subject }, 2000)
    const free = !found || found.payload.length === 0 || found.headers.has('KV-Operation') || found.headers.has('Nats-Marker-Reason')
    if (!free) return false
    return this.#put(found?.seq ?? 0)
  }

  /**
   * Waits until the claim may be free: its holder gave it up, or was not heard of for its time to live. Renewals come as core messages, so a standby asks nothing
   * while the holder lives. A hint: `tryTake` decides.
   */
  async untilFree(stop: AbortSignal): Promise<void> {
    if (stop.aborted) return
    await new Promise<void>((resolve) => {
      let timer = setTimeout(resolve, CLAIM_TTL_MS + 200)
      const subscription = this.#connection.nc.subscribe(this.#subject, {
        callback: (error, message) => {
          if (error) return
          clearTimeout(timer)
          if (message.data.length === 0) resolve()
          else timer = setTimeout(resolve, CLAIM_TTL_MS + 200)
        },
      })
      stop.addEventListener('abort', () => resolve(), { once: true })
      this.#endWait = () => {
        clearTimeout(timer)
        if (!this.#connection.isClosed) subscription.unsubscribe()
      }
    })
    this.#endWait?.()
  }

  /** Keeps the claim until `release`. */
  keep(): void {
    this.#timer = setInterval(() => void this.#renew(), RENEW_MS)
  }

  async release(): Promise<void> {
    clearInterval(this.#timer)
    this.onLost = undefined
    if (this.#revision === 0 || this.#connection.isClosed) return
    const headers = { 'KV-Operation': 'DEL' }
    const entry = { subject: this.#subject, payload: new Uint8Array(), expect: { seq: this.#revision }, headers }
    this.#revision = 0
    // Whoever finds it still there waits for its time to live.
    await publish(this.#connection.nc, entry, undefined, 1000).catch(() => undefined)
  }

  async #renew(): Promise<void> {
    try {
      if (await this.#put(this.#revision)) return
      // Refused: expired while this process was paused, or taken. Either way somebody else may be at work.
      clearInterval(this.#timer)
      this.onLost?.()
    } catch {
      // No answer: the next renewal tells.
    }
  }

  async #put(expected: number): Promise<boolean> {
    const ack = await publish(
      this.#connection.nc,
      {
        subject: this.#subject,
        payload: encodeJson({ engine: this.#engine }),
        expect: { seq: expected },
        headers: { 'Nats-TTL': `${CLAIM_TTL_MS / 1000}s` },
      },
      undefined,
      1500,
    )
    if (ack.error) return false
    this.#revision = ack.seq
    return true
  }
}
