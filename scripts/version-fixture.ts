/**
 * Keeps what this version leaves behind, for later ones to read: `node scripts/version-fixture.ts
 * NAME` writes test/fixtures/versions/NAME.log.zst. CONTRIBUTING.md says when.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectNats } from '@nats-io/transport-node'
import { asset, connect, pipeline } from '../src/index.ts'
import { encodeFact, factNames, factPath } from '../streams/facts.ts'
import { testServer } from '../test/kit/server.ts'
import { dump, fixtureNames, type VersionFixture, writeFixture } from '../test/kit/version-fixture.ts'
import { declare, GATES } from '../test/kit/version-pipeline.ts'
import { drafts } from '../test/streams/fact-examples.ts'

const NAMESPACE = 'kept'
const LOOK_MS = 200

function examples(): VersionFixture['examples'] {
  return factNames().map((name) => {
    const draft = drafts[name]
    const { payload, contentType } = encodeFact(draft)
    return { name, path: factPath(name, draft.ids), contentType, payload, data: draft.data }
  })
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(LOOK_MS)
}

async function makeNamespace(url: string): Promise<VersionFixture['runs']> {
  const { all, answered, failing, large, many, sum } = declare({ asset, pipeline })
  await using flow = await connect({ servers: url, namespace: NAMESPACE, gates: GATES })
  const first = await flow.engine({ sealAfter: '1s' })
  await first.active
  await flow.worker(all)
  const early = [
    await flow.materialize(sum, { key: 'sealed' }),
    await flow.materialize(many),
    await flow.materialize(large),
  ]
  for (const run of early) await run.result()
  const sealed = early[0]?.id ?? ''
  const isPacked = async (): Promise<boolean> => {
    const { checks } = await flow.verify({ only: ['history'] })
    return (checks[0]?.looked.runs ?? 0) >= early.length
  }
  await until(isPacked)
  await first.stop()
  const engine = await flow.engine({ sealAfter: 'never' })
  await engine.active
  const ended = await flow.materialize(many, { tags: { kind: 'ended' } })
  await ended.result()
  const failed = await flow.materialize(failing)
  await failed.result().catch(() => undefined)
  const open = await flow.materialize(answered, { key: 'open' })
  await until(
    async () =>
      (await flow.gates.list(open.id)).length > 0 && (await open.status())?.assets.sum?.status === 'materialized',
  )
  // The state has all of it then.
  await sleep(1000)
  const { findings } = await flow.verify()
  if (findings.length > 0) throw new Error(`the namespace is not as it should be: ${findings[0]?.message}`)
  await engine.stop()
  return { open: open.id, sealed, ended: ended.id, failed: failed.id }
}

const [name] = process.argv.slice(2)
if (name === undefined || !/^[0-9a-z.-]+$/.test(name) || fixtureNames().includes(name)) {
  console.error(
    `node scripts/version-fixture.ts NAME: a new one, of a-z 0-9 . -, such as 0.2.0; there are ${fixtureNames().join(', ')}`,
  )
  process.exit(2)
}
const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
await using server = await testServer()
const runs = await makeNamespace(server.url)
const nc = await connectNats({ servers: server.url })
const streams = await dump(nc, NAMESPACE)
await nc.close()
const made = new Date().toISOString().slice(0, 10)
const bytes = writeFixture(name, { v: 1, version, made, examples: examples(), streams, runs })
const counts = Object.entries(streams).map(([stream, messages]) => `${stream} ${messages.length}`)
console.log(`${name}: ${bytes} bytes; ${counts.join(', ')}`)
