/** `flow.retention.gc`: takes objects away that nothing names. */
import { FlowStoneError } from '../../streams/errors.ts'
import { takeStrays } from '../engine/history/prune/strays.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { prune } from './prune.ts'
import type { RunDeps } from './run-view.ts'

/** Options of `flow.retention.gc`. */
export interface GcOptions {
  /** True: nothing goes; the report says what would. */
  readonly dryRun?: boolean
  /**
   * Objects that were stored since then stay, because what names them may be on its way. Default
   * `'1d'`; more than `sealAfter` of the engines.
   */
  readonly grace?: Duration
}

/** Objects that nothing named. */
export interface GcReport {
  readonly objects: number
  readonly bytes: number
  readonly dryRun: boolean
}

const OPTIONS: OptionNames<GcOptions> = { dryRun: true, grace: true }
const GRACE = { minMs: 1000 }

export async function gc(deps: RunDeps, options: GcOptions): Promise<GcReport> {
  refuseUnknown('gc', options, OPTIONS)
  const { dryRun = false } = options
  const graceMs = parseDuration('gc: grace', options.grace ?? '1d', GRACE)
  await deps.found()
  const { connection, names, shards } = deps
  const beforeMs = deps.clock.now() - graceMs
  const source = { connection, names, shards }
  let found = await takeStrays(source, beforeMs, dryRun)
  if (!found) {
    // Engines look into packs that an older version has written.
    await prune(deps, { dryRun: true })
    found = await takeStrays(source, beforeMs, dryRun)
  }
  if (found) return { ...found, dryRun }
  throw new FlowStoneError(
    'state_behind',
    `gc: the history has not all facts up to ${new Date(beforeMs).toISOString()} yet: is an engine active, is grace longer than its sealAfter, or does an open scatter have very many large values? Try again with a longer grace`,
  )
}
