/** `flow.doctor`: looks at a namespace and its server, and says what to do. Changes nothing. */
import { type Finding, worstFirst } from '../../../projections/doctor/finding.ts'
import { secretFindings } from '../../../projections/doctor/secrets.ts'
import { serverFindings } from '../../../projections/doctor/server.ts'
import { shardFindings } from '../../../projections/doctor/shards.ts'
import { streamFindings } from '../../../projections/doctor/streams.ts'
import { workFindings } from '../../../projections/doctor/work.ts'
import { InvalidError } from '../../../streams/errors.ts'
import { shown } from '../../../streams/shown.ts'
import { askEngines } from '../../engine/answer.ts'
import { type OptionNames, refuseUnknown } from '../../options/unknown.ts'
import { type DoctorDeps, look } from './look.ts'
import { seeServer } from './server.ts'
import { seeShards, seeStreams } from './shards.ts'
import { seeSecrets, seeWork } from './work.ts'

/** What the doctor cannot find by itself. */
export interface DoctorOptions {
  /** The server's monitoring port, such as `http://127.0.0.1:8222`: it tells how often it syncs. */
  readonly monitor?: string
  /** API keys, as `serveGates` has them: those that expire soon are named. */
  readonly apiKeys?: readonly { readonly id: string; readonly expires?: Date | string }[]
}

const OPTIONS: OptionNames<DoctorOptions> = { monitor: true, apiKeys: true }

export async function doctor(deps: DoctorDeps, options: DoctorOptions): Promise<Finding[]> {
  refuseUnknown('doctor', options, OPTIONS)
  const { monitor, apiKeys = [] } = options
  if (monitor !== undefined && !/^https?:\/\//.test(monitor))
    throw new InvalidError(`doctor: monitor must be an address such as http://127.0.0.1:8222, got ${shown(monitor)}`)
  await deps.found()
  const { connection, names } = deps
  const [server, streams, shards, engines, work, secrets] = await Promise.all([
    seeServer(deps, monitor),
    seeStreams(deps),
    seeShards(deps),
    look(connection, async () => await askEngines(connection, names)),
    seeWork(deps),
    seeSecrets(deps, apiKeys),
  ])
  const denied = connection.status.denied.map(({ operation, permission }) => `${operation} ${permission}`)
  return worstFirst([
    ...serverFindings({ ...server, denied: [...new Set(denied)] }),
    ...streamFindings(streams),
    ...shardFindings(shards, engines),
    ...workFindings(work),
    ...secretFindings(secrets),
  ])
}
