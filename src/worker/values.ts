/** What tasks refer to: dependencies' values and slabs of keys, read from the log once and kept for the tasks that follow. */
import { decodeList } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { decodeFact, type Fact, factPath } from '../../streams/facts.ts'
import type { AssetName, RunId } from '../../streams/ids.ts'
import type { ValueAt } from '../../streams/schemas.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Io } from '../io/manager.ts'
import type { Connection } from '../log/connection.ts'
import { directGet, type StoredMessage } from '../log/nats.ts'

const VALUES_MAX = 32
const SLABS_MAX = 16

/** Keeps the newest `max` promises; what failed is forgotten at once, so the next caller tries again. */
class Recent<T> {
  readonly #entries = new Map<string, Promise<T>>()
  readonly #max: number

  constructor(max: number) {
    this.#max = max
  }

  get(key: string, make: () => Promise<T>): Promise<T> {
    const found = this.#entries.get(key)
    if (found) {
      this.#entries.delete(key)
      this.#entries.set(key, found)
      return found
    }
    const made = make()
    this.#entries.set(key, made)
    made.catch(() => this.#entries.delete(key))
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#max) break
      this.#entries.delete(oldest)
    }
    return made
  }
}

export function factOf(names: Names, p: number, message: StoredMessage): Fact {
  const path = names.factPath(message.subject) ?? ''
  return decodeFact({
    path,
    payload: message.payload,
    contentType: message.headers.get('Content-Type'),
    p,
    seq: message.seq,
    timeMs: message.timeMs,
  })
}

/** As the engine does: what is no fact of ours is stepped over. */
export function factIfAny(names: Names, p: number, message: StoredMessage): Fact | undefined {
  try {
    return factOf(names, p, message)
  } catch (error) {
    if (!(error instanceof FlowStoneError) || error.code === 'newer_version') throw error
    return undefined
  }
}

/** The value that stands at a place of the log. */
export async function loadValueAt(connection: Connection, names: Names, io: Io, at: ValueAt): Promise<unknown> {
  const message = await connection.read((nc) => directGet(nc, names.log(at.p), { seq: at.seq }))
  if (!message) throw new FlowStoneError('missing_value', `log ${names.log(at.p)} has no message ${at.seq}: pruned?`)
  const fact = factOf(names, at.p, message)
  if (fact.name !== 'asset.materialized')
    throw new FlowStoneError('missing_value', `message ${at.seq} of ${names.log(at.p)} is ${fact.name}, not a value`)
  return io.load(fact.data.value)
}

export interface Slab {
  readonly offset: number
  readonly keys: readonly unknown[]
}

export class Values {
  readonly #connection: Connection
  readonly #names: Names
  readonly #io: Io
  readonly #values = new Recent<unknown>(VALUES_MAX)
  readonly #slabs = new Recent<Slab>(SLABS_MAX)

  constructor(connection: Connection, names: Names, io: Io) {
    this.#connection = connection
    this.#names = names
    this.#io = io
  }

  /** Values of dependencies by name. They are shared by all tasks of this process: code must not change them. */
  async deps(deps: Readonly<Record<string, ValueAt>>): Promise<Record<string, unknown>> {
    const entries = await Promise.all(
      Object.entries(deps).map(async ([name, at]) => {
        const value = await this.#values.get(`${at.p}:${at.seq}`, () =>
          loadValueAt(this.#connection, this.#names, this.#io, at),
        )
        return [name, value] as const
      }),
    )
    return Object.fromEntries(entries)
  }

  /** Keys that this process stored itself need not be read again. */
  rememberSlab(run: RunId, asset: AssetName, slab: Slab): void {
    void this.#slabs.get(`${run}.${asset}.${slab.offset}`, () => Promise.resolve(slab))
  }

  slab(p: number, run: RunId, asset: AssetName, offset: number): Promise<Slab> {
    return this.#slabs.get(`${run}.${asset}.${offset}`, async () => {
      const subject = this.#names.fact(p, factPath('scatter.items', { run, asset, offset: String(offset) }))
      const message = await this.#connection.read((nc) => directGet(nc, this.#names.log(p), { last_by_subj: subject }))
      const fact = message && factOf(this.#names, p, message)
      if (fact?.name !== 'scatter.items')
        throw new FlowStoneError(
          'missing_items',
          `keys at offset ${offset} of scatter ${run}.${asset} are not on the log`,
        )
      return { offset, keys: decodeList(fact.data.keys, fact.data.encoding) }
    })
  }
}
