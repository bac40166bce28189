/**
 * A checkpoint that is larger than one atomic batch. Its effect is atomic all the same:
 *
 *   stage    its documents are stored under `staged.<id>.<n>`, batch by batch; nobody reads them there
 *   commit   the key `engine` says so (`redo`), at the old position: from here on it counts
 *   copy     the documents are stored under their keys, batch by batch; then `engine` says the new position, without `redo`
 *
 * Every batch writes the key `engine` under the revision of the batch before. So an engine that was
 * replaced fails at its next batch. If an engine dies before the commit, nothing of the checkpoint
 * counts. If it dies after the commit, its successor copies the documents first.
 */

import { FlowStoneError } from '../../../streams/errors.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { type Entry, leaderGet } from '../../log/nats.ts'
import type { Redo } from './position.ts'

/** The server takes 1,000 messages in one batch. One of them is the key `engine`. */
const BATCH_MESSAGES = 999
const BATCH_BYTES = 8 * 1024 * 1024
const SUBJECT_HEADER = 'Fs-Staged-Subject'
const READ_AHEAD = 32
const PREFIX = 'staged.'

/** Splits entries into groups. Each group fits one batch. */
export function batchesOf(entries: readonly Entry[]): Entry[][] {
  const batches: Entry[][] = []
  let batch: Entry[] = []
  let bytes = 0
  for (const entry of entries) {
    if (batch.length > 0 && (batch.length >= BATCH_MESSAGES || bytes + entry.payload.length > BATCH_BYTES)) {
      batches.push(batch)
      batch = []
      bytes = 0
    }
    batch.push(entry)
    bytes += entry.payload.length
  }
  if (batch.length > 0 || batches.length === 0) batches.push(batch)
  return batches
}

function stagedKey(id: string, n: number | '>'): string {
  return `${PREFIX}${id}.${n}`
}

/** The same documents under their staging keys. `at` is the number of the first one. */
export function stagedEntries(names: Names, bucket: string, id: string, at: number, batch: readonly Entry[]): Entry[] {
  return batch.map((entry, i) => ({
    ...entry,
    subject: names.kvSubject(bucket, stagedKey(id, at + i)),
    // A deletion has no time to live here: the staged entry must stay until it is copied.
    headers: {
      ...(entry.headers?.['KV-Operation'] ? { 'Fs-Staged-Deleted': '1' } : {}),
      ...partsOf(entry),
      [SUBJECT_HEADER]: entry.subject,
    },
  }))
}

function partsOf(entry: Entry): Record<string, string> {
  const kept = Object.entries(entry.headers ?? {}).filter(([name]) => name.startsWith('Fs-'))
  return Object.fromEntries(kept)
}

/** Reads the staged entries, ready to be stored. Throws `bad_state` if one is missing. */
export async function readStaged(
  connection: Connection,
  names: Names,
  bucket: string,
  redo: Redo,
  deleted: Readonly<Record<string, string>>,
): Promise<Entry[]> {
  const entries: Entry[] = []
  for (let from = 0; from < redo.count; from += READ_AHEAD) {
    const numbers = Array.from({ length: Math.min(READ_AHEAD, redo.count - from) }, (_, i) => from + i)
    const some = await Promise.all(
      numbers.map(async (n): Promise<Entry> => {
        const last_by_subj = names.kvSubject(bucket, stagedKey(redo.id, n))
        const found = await connection.read((nc) => leaderGet(nc, names.kvStream(bucket), { last_by_subj }))
        const subject = found?.headers.get(SUBJECT_HEADER)
        if (!found || subject === undefined)
          throw new FlowStoneError(
            'bad_state',
            `${last_by_subj}, a part of the last checkpoint of ${bucket}, is gone; stop all engines, then rebuild`,
          )
        if (found.headers.has('Fs-Staged-Deleted')) return { subject, payload: new Uint8Array(), headers: deleted }
        const contentType = found.headers.get('Content-Type')
        const headers = [...found.headers].filter(
          ([name]) => name.startsWith('Fs-') && !name.startsWith('Fs-Staged') && name !== 'Fs-Unit',
        )
        return {
          subject,
          payload: found.payload,
          ...(contentType === undefined ? {} : { contentType }),
          headers: Object.fromEntries(headers),
        }
      }),
    )
    entries.push(...some)
  }
  return entries
}

/** Ids of the checkpoints that are still staged. */
export async function stagedIds(
  list: (filter: string) => Promise<readonly string[]>,
  names: Names,
  bucket: string,
): Promise<Set<string>> {
  const prefix = names.kvSubject(bucket, PREFIX)
  const subjects = await list(`${prefix}>`)
  return new Set(subjects.flatMap((subject) => subject.slice(prefix.length).split('.')[0] ?? []))
}

export function stagedFilter(names: Names, bucket: string, id: string): string {
  return names.kvSubject(bucket, stagedKey(id, '>'))
}
