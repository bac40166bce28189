import { expect, it } from 'vitest'
import type { SensorState } from '../../projections/schedule/state.ts'
import { Alarms, type AlarmsContext } from '../../src/engine/schedules/alarms.ts'
import { factEntry } from '../../src/log/entries.ts'
import type { Entry, StoredMessage } from '../../src/log/nats.ts'
import { assetName, parseRunId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'
import { listeningLogger } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const names = namesOf('alarms')
const { id: run } = parseRunId('0-evaluation')

/** What an evaluation brought, as it stands on the log. */
function valueAt(seq: number, cursor: number): StoredMessage {
  const ids = { run, asset: assetName('sensor__files'), pipeline: 'p' }
  const value = { json: { cursor, runs: [] } }
  const data = { run, asset: 'sensor__files', pipeline: 'p', attempt: 1, worker: 'w', durationMs: 1, value }
  const entry = factEntry(names, 0, { name: 'asset.materialized', ids, data })
  const headers = new Map([['Content-Type', entry.contentType ?? '']])
  return { subject: entry.subject, payload: entry.payload, headers, seq, timeMs: 0 }
}

it('an evaluation is not given the cursor of an earlier one when facts are folded while that is read', async () => {
  const state: SensorState = {
    seq: 10,
    pipeline: 'p',
    name: 'files',
    version: 'v',
    spec: { name: 'files', target: 'load', everyMs: 1000, evaluates: 'sensor__files' },
    evaluations: 7,
    lastMs: 0,
    value: { shard: 0, seq: 9 },
    failures: 0,
  }
  const first = Promise.withResolvers<StoredMessage>()
  const reads = [first.promise, Promise.resolve(valueAt(19, 8))]
  const appended: Entry[] = []
  const context = {
    names,
    connection: { read: () => reads.shift() },
    clock: { now: () => 10_000 },
    store: { has: () => true, get: () => state },
    logger: listeningLogger(),
    log: { appendOnce: async (entry: Entry) => void appended.push(entry) },
  }
  // Only what it uses.
  const alarms = new Alarms(context as unknown as AlarmsContext)
  alarms.changed('sensor.p.files')
  await until('the cursor is read', () => reads.length === 1)
  Object.assign(state, { seq: 20, evaluations: 8, value: { shard: 0, seq: 19 } })
  first.resolve(valueAt(9, 7))
  await until('it is evaluated', () => appended.length > 0)
  alarms.stop()
  expect(appended.map(({ payload }) => JSON.parse(Buffer.from(payload).toString()))).toEqual([
    expect.objectContaining({
      sensor: { name: 'files', evaluation: 9, evaluates: true },
      input: { sensor__files__given: { json: { cursor: 8, runs: [] } } },
    }),
  ])
})
