/** Which pipelines are registered. */
import { factPath } from '../../streams/facts.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from '../log/connection.ts'
import { leaderGet } from '../log/nats.ts'
import { factOf } from '../log/read-fact.ts'

/** As the log has it: the state bucket may not know yet of a worker that has just started. */
export async function newestPipeline(
  { connection, names }: { readonly connection: Connection; readonly names: Names },
  shard: number,
  pipeline: string,
): Promise<PipelineSpec | undefined> {
  const last_by_subj = names.fact(shard, factPath('pipeline.registered', { pipeline, version: '*' }))
  const message = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj }))
  const fact = message && factOf(names, shard, message)
  return fact?.name === 'pipeline.registered' ? fact.data : undefined
}
