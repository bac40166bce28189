import { equal } from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { asset, connect, type IoManager, pipeline } from '../../../src/index.ts'

const folder = await mkdtemp(join(tmpdir(), 'docs-io-'))
// #region io
const files: IoManager = {
  async store(value, { pipeline, asset, run }) {
    const path = join(folder, `${pipeline}-${asset}-${run}.json`)
    await writeFile(path, JSON.stringify(value))
    return { path } // the reference: it is stored on the log
  },
  async load({ path }) {
    return JSON.parse(await readFile(String(path), 'utf8'))
  },
}

const orders = asset('orders', { io: 'files', execute: () => [20, 22] })
const flow = await connect({ io: { files } })
// #endregion
const revenue = asset('revenue', {
  dependsOn: [orders],
  execute: (_ctx, { orders }) => orders.length,
})
await flow.engine()
await flow.worker(pipeline('shop', [orders, revenue]))
equal(await (await flow.materialize(revenue, { upstream: 'all' })).result(), 2)
await flow.close()
await rm(folder, { recursive: true })
