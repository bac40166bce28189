/**
 * `flow.import`: reads archives into an empty namespace. Runs become sealed runs of its history,
 * with the sequences that they had. Its logs begin behind them.
 *
 *   verify   all archives are read once, and checked
 *   begin    the namespace is made, and marked: nobody else writes there from now on
 *   fill     packs, index, lists and newest values; blobs; pipelines, as facts of the new logs
 *   end      the state becomes a copy of the base, and the mark goes
 *
 * What dies before the end leaves the mark. The next import finds it, and begins anew.
 */
import { randomBytes } from 'node:crypto'
import { ConflictError, FlowStoneError, InvalidError } from '../../../streams/errors.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import { beginImport, endImport, importingTo, type Topology } from '../../../streams/namespace.ts'
import type { S3ClientLike } from '../../items/s3.ts'
import { streamBounds } from '../../log/nats.ts'
import { manifestOf } from '../../log/packs.ts'
import { sleep } from '../../options/timer.ts'
import { type OptionNames, refuseUnknown } from '../../options/unknown.ts'
import { CLAIM_TTL_MS, Claim } from '../shard/claim.ts'
import { type Filled, fill } from './fill.ts'
import type { ImportDeps, Verified } from './import-deps.ts'
import { recordsOf, verifiedArchive } from './read.ts'
import { placeOf } from './sink.ts'

/** Options of `flow.import`. */
export interface ImportOptions {
  /** Copies of each stream of the namespace, where it is made. Default 1. */
  readonly replicas?: number
  /** Leave out runs that had not ended. Default: an archive with such runs is refused. */
  readonly skipOpen?: boolean
  /** Schedules, sensors and subscriptions go on where they stood. Default true. */
  readonly positions?: boolean
  /** A client of @aws-sdk/client-s3. Default: one that is set up from the environment. */
  readonly client?: S3ClientLike
}

/** What `flow.import` read. */
export interface ImportReport extends Filled {
  readonly durationMs: number
}

const OPTIONS: OptionNames<ImportOptions> = {
  replicas: true,
  skipOpen: true,
  positions: true,
  client: true,
}
/** The claim of a process that was killed goes by itself. */
const CLAIM_WAIT_MS = CLAIM_TTL_MS + 1500
const LOOK_MS = 100

export async function importArchives(
  deps: ImportDeps,
  from: string | readonly string[],
  options: ImportOptions,
): Promise<ImportReport> {
  refuseUnknown('import', options, OPTIONS)
  const startedMs = performance.now()
  const archives = await verify(typeof from === 'string' ? [from] : from, options)
  const shards = archives[0]?.head.shards ?? 1
  const { topology, wasBroken } = await namespaceFor(deps, shards, options)
  const claims = await claimAll(deps, topology)
  try {
    if (!wasBroken) await mustBeEmpty(deps, topology)
    const { nc } = deps.connection
    const jsm = await jetstreamManager(nc)
    // Of a namespace whose import was broken off it is not read yet.
    await deps.clock.ready()
    const importing = { id: randomBytes(8).toString('hex'), atMs: deps.clock.now() }
    await beginImport(nc, jsm, topology, importing)
    const filled = await fill(
      { ...deps, topology, skipOpen: options.skipOpen === true, positions: options.positions !== false },
      archives,
    )
    await endImport(nc, jsm, topology, importing)
    return { ...filled, durationMs: performance.now() - startedMs }
  } finally {
    await Promise.all(claims.map((claim) => claim.release()))
  }
}

/** Throws `bad_archive`, and `open_runs` for what holds runs that had not ended. */
async function verify(from: readonly string[], { client, skipOpen }: ImportOptions): Promise<Verified[]> {
  if (!Array.isArray(from) || from.length === 0)
    throw new InvalidError('import: say which archive: a path, a file: URL or s3://BUCKET/KEY, or a list of them')
  const archives: Verified[] = []
  for (const one of from) {
    const place = placeOf('import', one, client)
    const source = place.source()
    const { head, foot } = await verifiedArchive(source)
    if (foot.open > 0 && !skipOpen)
      throw new FlowStoneError(
        'run_open',
        `import: ${place.name} has ${foot.open} of ${foot.runs} runs that had not ended, and cannot go on here; leave them out (--skip-open, or skipOpen: true), or export it again when they have ended`,
      )
    archives.push({ head, foot, records: () => recordsOf(source) })
  }
  const [first] = archives
  for (const { head } of archives)
    if (first && (head.shards !== first.head.shards || head.namespace !== first.head.namespace))
      throw new InvalidError(
        `import: all archives must be of one namespace: here are ${first.head.namespace} with ${first.head.shards} shards, and ${head.namespace} with ${head.shards}`,
      )
  return archives
}

async function namespaceFor(
  { connection, names, make }: ImportDeps,
  shards: number,
  { replicas }: ImportOptions,
): Promise<{ readonly topology: Topology; readonly wasBroken: boolean }> {
  const jsm = await jetstreamManager(connection.nc)
  const broken = await importingTo(jsm, names).catch((error: unknown) => {
    // The server says nothing of a bucket that is not there.
    if (error instanceof FlowStoneError) throw error
    return undefined
  })
  if (broken && broken.topology.shards !== shards)
    throw new InvalidError(
      `import: namespace ${names.ns} has ${broken.topology.shards} shards, and the archive ${shards}; use another namespace`,
    )
  if (broken) return { topology: broken.topology, wasBroken: true }
  return { topology: await make({ shards, ...(replicas === undefined ? {} : { replicas }) }), wasBroken: false }
}

/** So no engine begins to work there, and no other import. */
async function claimAll({ connection }: ImportDeps, { names, shards }: Topology): Promise<Claim[]> {
  const claims: Claim[] = []
  const name = `import-${randomBytes(6).toString('hex')}`
  const untilMs = performance.now() + CLAIM_WAIT_MS
  for (let shard = 0; shard < shards; shard++) {
    const claim = new Claim(connection, names, shard, name)
    while (!(await claim.tryTake())) {
      if (performance.now() < untilMs) {
        await sleep(LOOK_MS)
        continue
      }
      await Promise.all(claims.map((one) => one.release()))
      throw new ConflictError(
        `import: an engine or another import is active on shard ${shard} of namespace ${names.ns}; stop it, then import`,
      )
    }
    claim.keep()
    claims.push(claim)
  }
  return claims
}

async function mustBeEmpty({ connection }: ImportDeps, { names, shards }: Topology): Promise<void> {
  for (let shard = 0; shard < shards; shard++) {
    const { last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
    if (last === 0 && !(await manifestOf({ connection, names }, shard))) continue
    throw new FlowStoneError(
      'not_empty',
      `import: namespace ${names.ns} is not empty: its log ${names.log(shard)} was written to. Import into another namespace (--namespace)`,
    )
  }
}
