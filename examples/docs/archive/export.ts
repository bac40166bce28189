import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { asset, connect, pipeline } from '../../../src/index.ts'

const report = asset('report', { execute: () => ({ rows: 3 }) })

const folder = mkdtempSync(join(tmpdir(), 'docs-archive-'))
const flow = await connect({ namespace: 'docs_archive' })
await flow.engine()
await flow.worker(pipeline('reports', [report]))
await (await flow.materialize(report)).result()
// #region export
const written = await flow.export({
  to: join(folder, 'week.jsonl.zst'),
  since: new Date(Date.now() - 7 * 86_400_000),
})
console.log(`${written.runs} runs, ${written.facts} facts, SHA-256 ${written.sha256}`)

await using copy = await connect({ namespace: 'docs_archive_copy' })
await copy.import(join(folder, 'week.jsonl.zst'))
console.log(await copy.value(report))
// #endregion
await flow.close()
