/**
 * Reads for callers that come at once, as the appender is for what they write: while a read is
 * under way further ones wait, and leave together as one request. What was asked together is
 * answered together, so what its callers append next leaves as one group too. (Answered one by one,
 * the first would append alone, and every group costs about as much as a full one.)
 */
import type { Connection } from './connection.ts'
import { directGet, directGetMany, leaderGet, type StoredMessage } from './nats.ts'

const GROUP_MAX = 256

interface Wanted {
  readonly subject: string
  readonly resolve: (message: StoredMessage | undefined) => void
  readonly reject: (error: unknown) => void
}

export class GroupGet {
  readonly #connection: Connection
  readonly #stream: string
  #waiting: Wanted[] = []
  #busy = false

  constructor(connection: Connection, stream: string) {
    this.#connection = connection
    this.#stream = stream
  }

  /**
   * As `directGet`: the last message under a subject (no filter) of which there is never more than
   * one, or undefined.
   */
  last(subject: string): Promise<StoredMessage | undefined> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ subject, resolve, reject })
      if (!this.#busy) void this.#run()
    })
  }

  async #run(): Promise<void> {
    this.#busy = true
    // Siblings of this very turn of the event loop join the first group.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0, GROUP_MAX)
      try {
        const found = await this.#read([...new Set(group.map(({ subject }) => subject))])
        for (const { subject, resolve } of group) resolve(found.get(subject))
      } catch (error) {
        for (const { reject } of group) reject(error)
      }
    }
    this.#busy = false
  }

  async #read(subjects: readonly string[]): Promise<ReadonlyMap<string, StoredMessage | undefined>> {
    const [only] = subjects
    if (subjects.length === 1 && only !== undefined) {
      const query = { last_by_subj: only }
      return new Map([[only, await this.#connection.read((nc) => directGet(nc, this.#stream, query))]])
    }
    const found = await this.#connection.read((nc) => directGetMany(nc, this.#stream, subjects))
    const rest = subjects.filter((subject) => !found.has(subject))
    if (rest.length === 0) return found
    const byLeader = rest.map(async (subject) => {
      const message = await this.#connection.read((nc) => leaderGet(nc, this.#stream, { last_by_subj: subject }))
      return [subject, message] as const
    })
    return new Map([...found, ...(await Promise.all(byLeader))])
  }
}
