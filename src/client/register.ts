/** Makes a pipeline known to the engines: a fact on each shard. */
import { InvalidError } from '../../streams/errors.ts'
import { factPath } from '../../streams/facts.ts'
import { checkPipeline, type Pipeline } from '../define/pipeline.ts'
import type { Appender } from '../log/appender.ts'
import type { Connection } from '../log/connection.ts'
import { factEntry } from '../log/entries.ts'
import { leaderGet } from '../log/nats.ts'
import type { Namespace } from './namespace.ts'

/** Subject and headers of a fact. */
const ENVELOPE_BYTES = 1024

/** The same for the same version. Throws InvalidError for what is no pipeline. */
export function registrationKey(pipeline: Pipeline): string {
  const { name, spec } = checkPipeline('register', pipeline)
  return `${name} ${spec.version}`
}

export async function registerPipeline(
  connection: Connection,
  namespace: Namespace,
  logOf: (shard: number) => Appender,
  pipeline: Pipeline,
  by: string | undefined,
): Promise<void> {
  const { names, shards } = await namespace.found()
  const { name, version } = pipeline.spec
  const ids = { pipeline: name, version }
  const entries = Array.from({ length: shards }, (_, shard) => ({
    ...factEntry(names, shard, { name: 'pipeline.registered', ids, data: pipeline.spec }, by),
    expect: { seq: 0 },
  }))
  const bytes = entries[0]?.payload.length ?? 0
  const { maxPayload } = connection
  if (bytes > maxPayload - ENVELOPE_BYTES)
    throw new InvalidError(
      `pipeline ${name}: its ${pipeline.spec.assets.length} assets take ${bytes} bytes to register, and a message of this server holds ${maxPayload}; make several pipelines of it, or raise max_payload of nats-server`,
    )
  const at = async (shard: number): Promise<void> => {
    const subject = names.fact(shard, factPath('pipeline.registered', ids))
    if (await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj: subject }))) return
    const entry = entries[shard]
    if (!entry) return
    await logOf(shard).appendOnce(entry)
  }
  // Triggers are taken on shard 0, and start runs on any: a pipeline that is known there is known
  // everywhere.
  await Promise.all(Array.from({ length: shards - 1 }, (_, i) => at(i + 1)))
  await at(0)
}
