import { expect, it, vi } from 'vitest'
import { z } from 'zod'
import { asset, input } from '../../src/index.ts'
import type { Io } from '../../src/io/manager.ts'
import type { Connection } from '../../src/log/connection.ts'
import { factEntry } from '../../src/log/entries.ts'
import { Deps, Values } from '../../src/worker/attempt/values.ts'
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

it('a load that all have given up gets its signal aborted, and is begun anew for who asks next', async () => {
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
  const loads: AbortSignal[] = []
  const loadShared = async (_: unknown, signal: AbortSignal): Promise<unknown> => {
    loads.push(signal)
    return loads.length === 1 ? await new Promise(() => undefined) : { isSame: true, get: () => 7 }
  }
  const values = new Values(connection, names, { loadShared } as unknown as Io)
  const user = asset('user', { execute: () => 1 })
  const at = { n: { shard: 0, seq: 3, input: 'n' } }
  const waits = (left: AbortController): Promise<unknown> => values.deps(at, user, left)
  const [first, second] = [new AbortController(), new AbortController()]
  const both = [waits(first), waits(second)]
  await vi.waitFor(() => expect(loads).toHaveLength(1))
  first.abort(new Error('late'))
  await expect(both[0]).rejects.toThrow('late')
  expect(loads[0]?.aborted).toBe(false)
  second.abort(new Error('cancelled'))
  await expect(both[1]).rejects.toThrow('cancelled')
  expect(loads[0]?.reason).toEqual(new Error('cancelled'))
  expect((await (await values.deps(at, user)).get()).n).toBe(7)
  expect(await values.deps(at, user, { signal: AbortSignal.abort() }).catch(() => 'aborted')).toBe('aborted')
  expect((await (await values.deps(at, user)).get()).n).toBe(7)
  expect(loads).toHaveLength(2)
})

it('a value that is loaded for each execution is given up with it', async () => {
  const signals: (AbortSignal | undefined)[] = []
  const deps = new Deps([['n', { load: async (signal) => signals.push(signal) }]])
  const { signal } = new AbortController()
  await deps.get({ signal })
  expect(signals).toEqual([signal])
})
