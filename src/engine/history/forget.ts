/** Takes documents of the state away: by the next checkpoint of the state, which has the fence. */
import { partsSaid } from '../../log/document-parts.ts'
import { directGetMany } from '../../log/nats.ts'
import type { SealerOptions } from './options.ts'

const LOOK_KEYS = 1000
/** A checkpoint comes within milliseconds, on a busy machine within seconds. */
const LOOKS = 100
const LOOK_MS = 50

/** Whether none of them is there any more. False: a checkpoint is on its way. */
export async function forgetKeys(
  { connection, names, shard, state, touched }: SealerOptions,
  keys: readonly string[],
): Promise<boolean> {
  const bucket = names.stateBucket(shard)
  const left = new Map<string, number>()
  for (let i = 0; i < keys.length; i += LOOK_KEYS) {
    const subjects = keys.slice(i, i + LOOK_KEYS).map((one) => names.kvSubject(bucket, one))
    const found = await connection.read((nc) => directGetMany(nc, names.kvStream(bucket), subjects))
    for (const [subject, message] of found)
      if (!message.headers.has('KV-Operation'))
        left.set(subject.slice(names.kvSubject(bucket, '').length), partsSaid(message))
  }
  state.forget(keys, left)
  if (left.size > 0) touched()
  return left.size === 0
}

/** The same, once a checkpoint has come. False: none did. */
export async function untilForgotten(options: SealerOptions, keys: readonly string[]): Promise<boolean> {
  for (let look = 0; look < LOOKS && !options.isStopped(); look++) {
    if (await forgetKeys(options, keys)) return true
    await options.connection.ready(LOOK_MS)
  }
  return false
}
