/** `flow.verify`, see src/engine/verify; and `flow.problems`. */
import type { FlowStoneError } from '../../streams/errors.ts'
import type { Topology } from '../../streams/topology.ts'
import { refusalOf } from '../engine/shard/refusal.ts'
import type { VerifyReport } from '../engine/verify/report.ts'
import { type VerifyOptions, verify } from '../engine/verify/verify.ts'
import type { Connection } from '../log/connection.ts'
import { refuseUnknown } from '../options/unknown.ts'
import type { RunDeps } from './run-view.ts'

export async function verifyNamespace(deps: RunDeps, options: VerifyOptions): Promise<VerifyReport> {
  refuseUnknown('verify', options, ['only', 'rate', 'limit', 'onProgress', 'signal'])
  await deps.found()
  const { connection, names, shards, clock } = deps
  return await verify({ connection, names, shards, clock }, options)
}

/** What keeps engines from their work until somebody acts. */
export async function problemsOf(connection: Connection, { names, shards }: Topology): Promise<FlowStoneError[]> {
  const all = Array.from({ length: shards }, (_, shard) => refusalOf(connection, names, shard))
  return (await Promise.all(all)).flatMap((problem) => problem ?? [])
}
