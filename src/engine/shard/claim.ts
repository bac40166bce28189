/**
 * The claim says which engine is active on a shard. It is a key with a time to live: the active
 * engine renews it, and gives it up on a clean stop. The claim only avoids wasted work. Safety
 * comes from the fence of the checkpoint.
 */
import { decode, encodeJson } from '../../../streams/codec.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { listen } from '../../log/listen.ts'
import { ERR, isPassingRefusal, leaderGet, publish, type StoredMessage } from '../../log/nats.ts'

export const CLAIM_TTL_MS = 2000
const TTL = `${CLAIM_TTL_MS / 1000}s`
const RENEW_MS = 600
/**
 * A standby that has heard nothing for the time to live looks again after this: the server is not
 * prompt in dropping expired keys.
 */
const SILENT_LOOK_MS = 200

export class Claim {
  readonly #connection: Connection
  readonly #stream: string
  readonly #subject: string
  readonly #engine: string
  readonly #say: (message: string) => void
  readonly #key: string
  #revision = 0
  #timer: NodeJS.Timeout | undefined
  #endWait: (() => void) | undefined
  #silent = false
  #renewing: Promise<void> | undefined
  /** Called once, when the claim is found to be another engine's. */
  onLost: (() => void) | undefined

  constructor(
    connection: Connection,
    names: Names,
    /** A shard; or the key of something else that one process at a time does. */
    of: number | { readonly key: string },
    engine: string,
    say: (message: string) => void = () => undefined,
  ) {
    const key = typeof of === 'number' ? `claim.${of}` : of.key
    this.#connection = connection
    this.#say = say
    this.#key = `key ${key} of bucket ${names.controlBucket}`
    this.#stream = names.kvStream(names.controlBucket)
    this.#subject = names.kvSubject(names.controlBucket, key)
    this.#engine = engine
  }

  /** Tries once to become the active engine. */
  async tryTake(): Promise<boolean> {
    const found = await this.#read()
    const { holder, odd } = holderOf(found)
    if (odd !== undefined) this.#say(`${this.#key} ${odd}; no engine wrote that, so it is taken over`)
    // Its own: kept from before the server was away.
    if (holder !== undefined && holder !== this.#engine) return false
    return this.#put(found?.seq ?? 0)
  }

  /**
   * Waits until the claim may be free: its holder gave it up, or was not heard of for its time to
   * live. Renewals come as core messages, so a standby asks nothing while the holder lives. A hint:
   * `tryTake` decides.
   */
  async untilFree(stop: AbortSignal): Promise<void> {
    if (stop.aborted) return
    await new Promise<void>((resolve) => {
      const expired = (): void => {
        this.#silent = true
        resolve()
      }
      let timer = setTimeout(expired, this.#silent ? SILENT_LOOK_MS : CLAIM_TTL_MS)
      const subscription = listen(this.#connection.nc, this.#subject, (message) => {
        clearTimeout(timer)
        this.#silent = false
        if (message.data.length === 0) resolve()
        else timer = setTimeout(expired, CLAIM_TTL_MS)
      })
      stop.addEventListener('abort', expired)
      this.#endWait = () => {
        stop.removeEventListener('abort', expired)
        clearTimeout(timer)
        if (!this.#connection.isClosed) subscription.unsubscribe()
      }
    })
    this.#endWait?.()
  }

  /** Keeps the claim until `release`. */
  keep(): void {
    this.#timer = setInterval(() => {
      // One at a time: a second one would be refused because of the first.
      this.#renewing ??= this.#renew().finally(() => {
        this.#renewing = undefined
      })
    }, RENEW_MS)
  }

  async release(): Promise<void> {
    clearInterval(this.#timer)
    this.onLost = undefined
    await this.#renewing
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
      const found = await this.#read()
      const { holder } = holderOf(found)
      // An earlier renewal was stored and its answer was lost, or the claim expired while the
      // server was away. If another engine was active meanwhile, it moved the fence, and the next
      // checkpoint fails.
      if ((holder === undefined || holder === this.#engine) && (await this.#put(found?.seq ?? 0))) return
      clearInterval(this.#timer)
      this.onLost?.()
    } catch {
      // No answer: the next renewal tells.
    }
  }

  async #read(): Promise<StoredMessage | undefined> {
    return await leaderGet(this.#connection.nc, this.#stream, { last_by_subj: this.#subject }, 1500)
  }

  async #put(expected: number): Promise<boolean> {
    const ack = await publish(
      this.#connection.nc,
      {
        subject: this.#subject,
        payload: encodeJson({ engine: this.#engine }),
        expect: { seq: expected },
        headers: { 'Nats-TTL': TTL },
      },
      undefined,
      1500,
    )
    // Nobody else can claim it then. The active engine continues; a standby tries again.
    if (ack.error && isPassingRefusal(ack.error))
      throw new FlowStoneError('refused', `the claim could not be stored: ${ack.error.description}`)
    // A renewal before this one is still on its way: that is no answer yet.
    if (ack.error?.errCode === ERR.wrongLastSequenceConstant)
      throw new FlowStoneError('pending', 'a renewal of the claim is still on its way')
    if (ack.error) return false
    this.#revision = ack.seq
    this.#silent = false
    return true
  }
}

/**
 * Which engine holds the claim; none, if there is no claim. What no engine of ours wrote (`odd`) is
 * no claim: it would never end, since only what has its time to live goes by itself. To take it
 * over is safe, as it always is: the checkpoint's fence decides.
 */
function holderOf(found: StoredMessage | undefined): { readonly holder?: string; readonly odd?: string } {
  if (
    !found ||
    found.payload.length === 0 ||
    found.headers.has('KV-Operation') ||
    found.headers.has('Nats-Marker-Reason')
  )
    return {}
  if (found.headers.get('Nats-TTL') !== TTL) return { odd: `has no time to live of ${TTL}` }
  try {
    const claim = decode(found.payload, 'application/json')
    const holder: unknown = typeof claim === 'object' && claim !== null ? Reflect.get(claim, 'engine') : undefined
    return typeof holder === 'string' && holder !== '' ? { holder } : { odd: 'names no engine' }
  } catch {
    return { odd: 'is not JSON' }
  }
}

/** The engine that is active on a shard; undefined: none. */
export async function engineAtWork(connection: Connection, names: Names, shard: number): Promise<string | undefined> {
  return await claimHolder(connection, names, `claim.${shard}`)
}

/** Who has a claim, by its key; undefined: nobody. */
export async function claimHolder(connection: Connection, names: Names, key: string): Promise<string | undefined> {
  const subject = names.kvSubject(names.controlBucket, key)
  const stream = names.kvStream(names.controlBucket)
  return holderOf(await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: subject }))).holder
}
