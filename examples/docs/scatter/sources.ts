import { deepEqual } from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type AnyAsset, asset, connect, pipeline } from '../../../src/index.ts'
import { readJsonLines, readLines } from '../../../src/items/index.ts'

const folder = await mkdtemp(join(tmpdir(), 'docs-sources-'))
await writeFile(join(folder, 'urls.txt'), '/a\n/b\n')
await writeFile(join(folder, 'orders.jsonl'), '{"id":1}\n{"id":2}\n')

// #region sources
const fromList = asset('fromList', {
  scatter: () => ['/a', '/b'],
  execute: ({ scatterKey }) => scatterKey,
})

const fromGenerator = asset('fromGenerator', {
  scatter: async function* () {
    for (let page = 1; page <= 2; page++) yield { page }
  },
  execute: ({ scatterKey }) => scatterKey.page,
})

const fromLines = asset('fromLines', {
  scatter: () => readLines(join(folder, 'urls.txt')),
  execute: ({ scatterKey }) => scatterKey,
})

const fromJson = asset('fromJson', {
  scatter: () =>
    readJsonLines(join(folder, 'orders.jsonl'))
      .map((line) => line as { id: number })
      .filter(({ id }) => id > 1),
  execute: ({ scatterKey }) => scatterKey.id,
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('site', [fromList, fromGenerator, fromLines, fromJson]))
const all: readonly AnyAsset[] = [fromList, fromGenerator, fromLines, fromJson]
const runs = await Promise.all(all.map((each) => flow.materialize(each)))
const results = await Promise.all(runs.map((run) => run.result()))
deepEqual(results, [
  [
    { key: '/a', value: '/a' },
    { key: '/b', value: '/b' },
  ],
  [
    { key: { page: 1 }, value: 1 },
    { key: { page: 2 }, value: 2 },
  ],
  [
    { key: '/a', value: '/a' },
    { key: '/b', value: '/b' },
  ],
  [{ key: { id: 2 }, value: 2 }],
])
await flow.close()
await rm(folder, { recursive: true })
