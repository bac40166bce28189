import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { asset, connect, input, pipeline, sensor } from '../../../src/index.ts'

const arrived = ['a.csv', 'b.csv']

const file = input('file', z.string())
const load = asset('load', { dependsOn: [file], execute: (_ctx, { file }) => `loaded ${file}` })

const newFiles = sensor('new-files', {
  every: '30s',
  run: load,
  evaluate: (_ctx, cursor: number = 0) => ({
    cursor: arrived.length,
    runs: arrived.slice(cursor).map((name) => ({ input: { file: name }, key: name })),
  }),
})

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('files', [file, load], { sensors: [newFiles] }))
let runs = await flow.runs()
while (runs.length < 2) {
  await sleep(50)
  runs = await flow.runs()
}
const loaded = await Promise.all(runs.map((run) => flow.run(run.id).result()))
console.log(loaded.toSorted().join(', '))
await flow.close()

// prints: loaded a.csv, loaded b.csv
