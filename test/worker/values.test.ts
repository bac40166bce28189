import { expect, it } from 'vitest'
import { z } from 'zod'
import { asset, input } from '../../src/index.ts'
import type { Io } from '../../src/io/manager.ts'
import type { Connection } from '../../src/log/connection.ts'
import { factEntry } from '../../src/log/entries.ts'
import { Values } from '../../src/worker/attempt/values.ts'
import { runId } from '../../streams/ids.ts'
import { namesOf } from '../../streams/subjects.ts'

it('an input is what the schema of the version that asks makes of it, beside another version', async () => {
  const names = namesOf('ns')
  const fact = factEntry(names, 0, {
    name: 'run.requested',
    ids: { run: runId(0, 'given') },
    data: { pipeline: 'p', version: '1', target: 'made', upstream: 'missing', input: { n: { json: 5 } } },
  })
  const message = { ...fact, seq: 3, timeMs: 0, headers: new Map([['Content-Type', fact.contentType]]) }
  const connection = { read: async () => message } as unknown as Connection
  const io = { load: async ({ json }: { json: unknown }) => json } as unknown as Io
  const values = new Values(connection, names, io)
  const versions = [z.number(), z.number().transform((n) => n * 10)].map((schema) =>
    asset('made', { dependsOn: [input('n', schema)], execute: () => 1 }),
  )
  const seen: unknown[] = []
  for (const version of [...versions, ...versions])
    seen.push((await (await values.deps({ n: { shard: 0, seq: 3, input: 'n' } }, version)).get()).n)
  expect(seen).toEqual([5, 50, 5, 50])
})
