/**
 * What the child processes share: they tell their parent what happens, a line of JSON each, and end
 * with it.
 */
import { channel } from 'node:diagnostics_channel'
import { connect, type EngineOptions, type Flow, TELEMETRY_CHANNELS } from '../../../src/index.ts'
import { dieAtAppend } from './dying.ts'
import type { LimitsWork } from './limits-work.ts'

export interface Settings {
  url: string
  namespace: string
  shards?: number
  concurrency?: number
  ackWaitMs?: number
  reconcileMs?: number
  sealAfter?: EngineOptions['sealAfter']
  snapshotEvery?: number
  retention?: EngineOptions['retention']
  /** How far the clock of this process is off. */
  skewMs?: number
  /** What `limits` does. */
  work?: LimitsWork | readonly LimitsWork[]
  /** What `signaller` answers. */
  gates?: readonly string[]
  /** What `retrier` has tried again. */
  run?: string
  /** What `import` reads. */
  archive?: string
  /** Whose requests `http` takes. */
  apiKeyHash?: string
}

const QUIET: ReadonlySet<string> = new Set([
  'flowstone:materialization.stop',
  'flowstone:engine.checkpoint',
  'flowstone:scatter.instance_complete',
  'flowstone:scatter.instance_fail',
])

/** Of thousands of runs nobody reads these. */
const MANY = /materialization|task/

export function tell(event: string, data: object = {}): void {
  process.stdout.write(`${JSON.stringify({ event, atMs: Date.now(), ...data })}\n`)
}

/** Connects as the settings in the last argument say. */
export async function begin(): Promise<{ flow: Flow; settings: Settings }> {
  dieAtAppend()
  const settings = JSON.parse(process.argv.at(-1) ?? '{}') as Settings
  const realNow = Date.now.bind(Date)
  Date.now = () => realNow() + (settings.skewMs ?? 0)
  for (const name of TELEMETRY_CHANNELS) {
    if (!QUIET.has(name) && !(process.env.KILL_EVENTS && MANY.test(name)))
      channel(name).subscribe((data) => tell(name.replace('flowstone:', ''), data as object))
  }
  const { url, namespace, shards } = settings
  const flow = await connect({ servers: url, namespace, ...(shards === undefined ? {} : { shards }) })
  process.on('SIGTERM', () => void flow.close().then(() => process.exit(0)))
  process.stdin.resume().on('end', () => process.exit(1))
  return { flow, settings }
}
