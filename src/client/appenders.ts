/** The appenders of a flow: one for each stream, and one more that never gives up. */
import type { Names } from '../../streams/subjects.ts'
import { Appender, type AppenderOptions } from '../log/appender.ts'
import type { Connection } from '../log/connection.ts'

const PATIENT: AppenderOptions = { fullGiveUpMs: Number.POSITIVE_INFINITY }

export class Appenders {
  readonly #connection: Connection
  readonly #names: Names
  readonly #all = new Map<string, Appender>()

  constructor(connection: Connection, names: Names) {
    this.#connection = connection
    this.#names = names
  }

  readonly log = (shard: number): Appender => this.#of(this.#names.log(shard), {})
  /** Of workers and engines: what was done is not given up because there is no room to say so. */
  readonly patientLog = (shard: number): Appender => this.#of(this.#names.log(shard), PATIENT)
  readonly patientWork = (shard: number): Appender => this.#of(this.#names.work(shard), PATIENT)

  async flush(): Promise<void> {
    await Promise.all([...this.#all.values()].map((appender) => appender.flush()))
  }

  #of(stream: string, options: AppenderOptions): Appender {
    const key = options === PATIENT ? `${stream} patient` : stream
    const found = this.#all.get(key) ?? new Appender(this.#connection, stream, options)
    this.#all.set(key, found)
    return found
  }
}
