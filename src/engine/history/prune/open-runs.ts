/** What open runs of all shards refer to: nothing of that is pruned. */
import { namedBy, takenBy } from '../../../../projections/retention/summary.ts'
import { type RunState, stateKey } from '../../../../projections/state.ts'
import type { Names } from '../../../../streams/subjects.ts'
import type { Connection } from '../../../log/connection.ts'
import { partsSaid } from '../../../log/document-parts.ts'
import { decodeDoc, readDocIfAny } from '../../../log/documents.ts'
import { directGetMany, isGone, streamInfo } from '../../../log/nats.ts'

const AT_ONCE = 200

export interface OpenRefs {
  readonly runs: readonly string[]
  /** Values, as `<shard>,<seq>`. */
  readonly values: readonly string[]
}

/** A few runs at a time, so that whoever asks can pause in between. */
export async function* openRefs(connection: Connection, names: Names, shards: number): AsyncGenerator<OpenRefs> {
  for (let shard = 0; shard < shards; shard++) {
    const bucket = names.stateBucket(shard)
    const runs = await openRuns(connection, names, bucket)
    for (let i = 0; i < runs.length; i += AT_ONCE)
      yield refsOf(await readRuns(connection, names, bucket, runs.slice(i, i + AT_ONCE)))
  }
}

async function openRuns(connection: Connection, names: Names, bucket: string): Promise<string[]> {
  const prefix = names.kvSubject(bucket, 'open.')
  try {
    const info = await connection.read((nc) => streamInfo(nc, names.kvStream(bucket), `${prefix}>`))
    return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
  } catch (error) {
    // One that is gone is made again, and folded; its runs are looked at then.
    if (isGone(error)) throw new Error(`${bucket} is gone: nothing is pruned until it is there again`)
    throw error
  }
}

async function readRuns(
  connection: Connection,
  names: Names,
  bucket: string,
  runs: readonly string[],
): Promise<RunState[]> {
  const subjects = runs.map((run) => names.kvSubject(bucket, stateKey.run(run)))
  const there = await connection.read((nc) => directGetMany(nc, names.kvStream(bucket), subjects))
  const docs = await Promise.all(
    runs.map(async (run, i) => {
      const message = there.get(subjects[i] ?? '')
      const key = stateKey.run(run)
      if (message && partsSaid(message) === 1) return decodeDoc(key, message)
      return await readDocIfAny(connection, names, bucket, key)
    }),
  )
  // What stands under the key of a run is its document.
  return docs.filter((doc) => doc !== undefined) as RunState[]
}

function refsOf(docs: readonly RunState[]): OpenRefs {
  return {
    runs: docs.flatMap((doc) => [...namedBy(doc), ...(doc.retry ? [doc.retry.run] : [])]),
    values: docs.flatMap((doc) => takenBy(doc).map((at) => at.join())),
  }
}
