import { subscribe } from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, connect, pipeline, type TelemetryEvents } from '../../../src/index.ts'

const report = asset('report', { execute: () => 42 })
const sales = pipeline('sales', [report])
const histogram = { record: (_ms: number, labels: object) => void seen.push(labels) }
const seen: object[] = []

// #region listen
subscribe('flowstone:materialization.stop', (message) => {
  const event = message as TelemetryEvents['flowstone:materialization.stop']
  histogram.record(event.durationMs, { asset: event.asset, phase: event.phase })
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(sales)
await (await flow.materialize(report)).result()
while (seen.length === 0) await sleep(10)
console.log(JSON.stringify(seen[0]))
await flow.close()
// prints: {"asset":"report","phase":"execute"}
