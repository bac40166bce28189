import { afterEach, expect, it, vi } from 'vitest'
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

afterEach(() => void vi.useRealTimers())

it('a value whose load never ends is loaded anew, once it was given up after half a minute', async () => {
  vi.useFakeTimers({ toFake: ['performance'] })
  const names = namesOf('ns')
  const ids = { run: runId(0, 'given') }
  const requested = {
    pipeline: 'p',
    version: '1',
    target: 'made',
    upstream: 'missing',
    input: { n: { json: 1 } },
  } as const
  const fact = factEntry(names, 0, { name: 'run.requested', ids, data: requested })
  const message = { ...fact, seq: 3, timeMs: 0, headers: new Map([['Content-Type', fact.contentType]]) }
  const connection = { read: async () => message } as unknown as Connection
  let loads = 0
  const loadShared = async (): Promise<unknown> => {
    loads += 1
    return loads === 1 ? await new Promise(() => undefined) : { isSame: true, get: () => 7 }
  }
  const values = new Values(connection, names, { loadShared } as unknown as Io)
  const user = asset('user', { execute: () => 1 })
  const at = { n: { shard: 0, seq: 3, input: 'n' } }
  const givenUp = async (): Promise<void> => {
    const left = new AbortController()
    const waits = values.deps(at, user, () => left.signal)
    left.abort(new Error('late'))
    await expect(waits).rejects.toThrow('late')
  }
  await givenUp()
  await vi.waitFor(() => expect(loads).toBe(1))
  await givenUp()
  expect(loads).toBe(1)
  vi.advanceTimersByTime(30_000)
  await givenUp()
  expect((await (await values.deps(at, user)).get()).n).toBe(7)
  expect(loads).toBe(2)
})
