// #region all
import { subscribe } from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, connect, pipeline, TELEMETRY_CHANNELS } from '../../../src/index.ts'

const counts = new Map<string, number>()
for (const channel of TELEMETRY_CHANNELS)
  subscribe(channel, () => counts.set(channel, (counts.get(channel) ?? 0) + 1))
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('sales', [asset('report', { execute: () => 42 })]))
while (!counts.has('flowstone:engine.active')) await sleep(10)
await flow.close()
console.log(counts.get('flowstone:engine.active'), counts.get('flowstone:engine.standby'))
// prints: 1 1
