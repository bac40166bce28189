import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import type { ExportOptions } from '../../src/engine/archive/export.ts'
import { recordsOf } from '../../src/engine/archive/read.ts'
import { archiveRuns, confirmArchive } from '../../src/engine/archive/receipt.ts'
import { asset, connect, type Flow, input, pipeline, type Run } from '../../src/index.ts'
import type { ByteSource } from '../../src/items/byte-source.ts'
import { fileSource } from '../../src/items/file.ts'
import { s3Object } from '../../src/items/s3.ts'
import { Connection } from '../../src/log/connection.ts'
import { isSealed } from '../../src/log/history.ts'
import { type ArchiveFoot, type ArchiveRecord, lineOf, recordIn } from '../../streams/archive.ts'
import { parseRunId } from '../../streams/ids.ts'
import type { ArchiveReceipt } from '../../streams/retention.ts'
import { namesOf } from '../../streams/subjects.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { startS3 } from '../kit/s3.ts'
import { factsOf, freshNamespace, openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
const folder = mkdtempSync(join(tmpdir(), 'flowstone-archive-'))
afterAll(() => rmSync(folder, { recursive: true }))

const GATES = { secrets: [{ id: 'k1', secret: 'a secret of thirty-two bytes or more' }] }
const ODD = {
  big: 2n ** 70n,
  minus: -0,
  map: new Map([[{ a: 1 }, new Set([1])]]),
  floats: new Float32Array([1.5, -2]),
  bytes: new Uint8Array([0, 255]),
  at: new Date(0),
  half: '\ud83d\ude00',
  2: 'two',
  1: 'one',
}
const amount = input('amount', z.number().default(1))
const first = asset('first', { dependsOn: [amount], execute: async (_ctx, deps) => ({ amount: deps.amount }) })
const second = asset('second', { dependsOn: [first], execute: async (_ctx, deps) => deps.first.amount + 1 })
const odd = asset('odd', { execute: async () => ODD })
const counted = asset('counted', { dependsOn: [odd], execute: async (_ctx, deps) => deps.odd.floats.length })
const large = asset('large', { execute: async () => ({ text: 'large '.repeat(50_000), noise: noise() }) })
const failing = asset('failing', {
  dependsOn: [first],
  retry: { maxAttempts: 1 },
  execute: async () => {
    throw new Error('it is broken')
  },
})
const asks = asset('asks', {
  execute: async (ctx) => ctx.signalGate({ timeout: '1h', correlationKey: `asks-${ctx.runId}` }),
  onSignal: async (_ctx, payload) => ({ heard: payload }),
})
let isBroken = true
const many = asset('many', {
  retry: { maxAttempts: 1 },
  scatter: () => ['a', 'b', 'c', { key: 4 }],
  scatterOptions: { retry: { maxAttempts: 1 }, failureMode: 'partial', failureThreshold: { count: 1 } },
  execute: ({ scatterKey }) => {
    if (scatterKey === 'c' && isBroken) throw new Error('no c')
    return scatterKey === 'a' ? noise() : { scatterKey, big: 4n }
  },
  gather: async (results) => (await collect(results)).map((result) => (result.status === 'ok' ? 'ok' : 'failed')),
})
const shop = pipeline('shop', [amount, first, second, odd, counted, large, failing, asks, many])

/** Text that hardly gets smaller. */
function noise(): string {
  const bytes = Buffer.alloc(80_000)
  for (let i = 0, x = 1; i < bytes.length; i++) {
    x = (x * 48_271) % 2_147_483_647
    bytes[i] = x
  }
  return bytes.toString('base64')
}

let stage: Stage
let runs: Record<'plain' | 'odd' | 'large' | 'failed' | 'gated' | 'scattered' | 'reusing' | 'keyed' | 'late', Run>

beforeAll(async () => {
  stage = await openStage(server.url, shop, { sealAfter: '1s', gates: GATES, shards: 2 })
  const { flow } = stage
  const [plain, oddRun, largeRun, failed, gated, scattered] = await Promise.all([
    flow.materialize(second, { input: { amount: 41 }, tags: { kind: 'kept' }, partition: 'p1', upstream: 'all' }),
    flow.materialize(odd),
    flow.materialize(large),
    flow.materialize(failing, { upstream: 'all' }),
    flow.materialize(asks),
    flow.materialize(many),
  ])
  await until('the gate is open', async () => (await flow.gates.list(gated.id)).length === 1)
  await flow.gates.signalByCorrelationKey(`asks-${gated.id}`, { yes: true })
  await Promise.all([plain, oddRun, largeRun, gated, scattered].map((run) => run.result()))
  await rejection(failed.result())
  const connection = await Connection.open({ servers: server.url })
  const source = { connection, names: namesOf(stage.namespace) }
  await (await flow.materialize(first, { upstream: 'all' })).result()
  for (const run of [plain, oddRun, largeRun, failed, gated, scattered])
    await until('it is sealed', async () => await isSealed(source, run.id))
  await connection.close()
  // Those are on the log.
  const reusing = await flow.materialize(counted, { upstream: 'missing' })
  const keyed = await flow.materialize(second, { key: 'once', upstream: 'all' })
  await Promise.all([reusing.result(), keyed.result()])
  const late = await flow.materialize(odd, { upstream: 'all' })
  await late.result()
  runs = { plain, odd: oddRun, large: largeRun, failed, gated, scattered, reusing, keyed, late }
})
afterAll(() => stage[Symbol.asyncDispose]())

/** All that users see of runs. */
async function seen(flow: Flow): Promise<Record<string, unknown>> {
  const ofRun = async (run: string) => {
    const handle = flow.run(run)
    return {
      facts: await factsOf(flow, run),
      result: await handle.result().catch((error: Error) => error.message),
      status: await handle.status(),
      input: await handle.input(),
      gates: await flow.gates.list(run),
      scatters: await flow.scatter.list(run),
    }
  }
  const all = await flow.runs()
  const scatter = `${runs.scattered.id}.many`
  return {
    all,
    failed: await flow.runs({ status: 'failed' }),
    tagged: await flow.runs({ tag: { kind: 'kept' } }),
    page: await flow.runs({ after: all[2]?.id ?? '', limit: 3 }),
    values: await Promise.all(['first', 'second', 'odd', 'large', 'many'].map((one) => flow.value(`shop/${one}`))),
    partition: await flow.value(second, { partition: 'p1' }),
    partitions: await flow.partitions(second),
    failures: await collect(flow.scatter.failures(scatter)),
    gate: await flow.gates.getByCorrelationKey(`asks-${runs.gated.id}`),
    runs: await Promise.all(all.map(({ id }) => ofRun(id))),
  }
}

/** A namespace that is not there yet. */
async function another(act: (flow: Flow, namespace: string) => Promise<void>): Promise<void> {
  const namespace = freshNamespace()
  await using flow = await connect({ servers: server.url, namespace, gates: GATES })
  await act(flow, namespace)
}

async function recordsIn(source: ByteSource): Promise<ArchiveRecord[]> {
  const records = await collect(recordsOf(source))
  // Its head says when it was written. What is sealed comes first, and more is sealed meanwhile.
  return records.filter(({ kind }) => kind !== 'archive').toSorted((a, b) => (lineOf(a) < lineOf(b) ? -1 : 1))
}

function idsOf(path: string): string[] {
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n').map(recordIn)
  return lines.flatMap(({ kind, run, reference }) => (kind === 'run.requested' && run && !reference ? [run] : []))
}

describe('an archive of all runs', () => {
  const to = join(folder, 'all.jsonl')
  let namespace = ''

  it('gives back all that users see of them', async () => {
    const report = await stage.flow.export({ to, all: true })
    expect(report).toMatchObject({ to, runs: 10, open: 0, left: 0, blobs: 2 })
    const before = await seen(stage.flow)
    namespace = freshNamespace()
    await using flow = await connect({ servers: server.url, namespace, gates: GATES })
    expect(await flow.import(to)).toMatchObject({ runs: 10, blobs: 2, left: 0, twice: 0 })
    expect(await seen(flow)).toEqual(before)
    expect(await rejection(flow.import(to))).toMatchObject({ code: 'not_empty' })
  })

  it('goes on as if it had always been there', async () => {
    await using other = await openStage(server.url, shop, { namespace, gates: GATES })
    const { flow } = other
    expect(await rejection(flow.import(to))).toMatchObject({ code: 'conflict' })
    const keyed = await flow.materialize(second, { key: 'once', upstream: 'all' })
    expect([keyed.id, keyed.isNew]).toEqual([runs.keyed.id, false])
    const reusing = await flow.materialize(counted, { upstream: 'missing' })
    expect(await reusing.result()).toBe(2)
    await until('the state shows the end', async () => (await reusing.view())?.finishedAt !== undefined)
    expect((await reusing.view())?.assets.odd).toMatchObject({ status: 'reused', reused: { run: runs.late.id } })
    const retried = await flow.retry(runs.failed.id)
    await rejection(retried.result())
    isBroken = false
    const redriven = await flow.scatter.redrive(`${runs.scattered.id}.many`)
    expect(await redriven.result()).toEqual(['ok', 'ok', 'ok', 'ok'])
    isBroken = true
    const last = JSON.parse(readFileSync(to, 'utf8').trimEnd().split('\n').at(-1) ?? '') as { data: ArchiveFoot }
    for (const run of [reusing, retried, redriven]) {
      const { shard } = parseRunId(run.id)
      const range = last.data.ranges.find((one) => one.shard === shard)
      for (const { seq } of await factsOf(flow, run.id)) expect(seq).toBeGreaterThan(range?.last ?? 0)
    }
    expect((await flow.runs()).map(({ id }) => id)).toContain(runs.plain.id)
  })

  it('has the same records as lines, compressed, as Parquet and in S3', async () => {
    await using s3 = await startS3('kept')
    const { client } = s3
    const expected = await recordsIn(fileSource(to))
    for (const name of ['all.jsonl.gz', 'all.jsonl.zst', 'all.parquet']) {
      await stage.flow.export({ to: join(folder, name), all: true })
      expect(await recordsIn(fileSource(join(folder, name)))).toEqual(expected)
    }
    await stage.flow.export({ to: 's3://kept/a/all.jsonl', all: true, client })
    expect(await recordsIn(s3Object({ bucket: 'kept', key: 'a/all.jsonl', client }))).toEqual(expected)
    const chunks: Buffer[] = []
    const stream = new PassThrough().on('data', (chunk: Buffer) => chunks.push(chunk))
    expect(await stage.flow.export({ to: stream, all: true })).toMatchObject({ to: undefined, runs: 10 })
    expect(chunks.join('').split('\n')).toHaveLength(expected.length + 3)
    expect(readdirSync(folder).filter((name) => name.endsWith('.part'))).toEqual([])
  })

  it('is refused when a byte, a line or its end is another, and nothing is made', async () => {
    const text = readFileSync(to, 'utf8')
    const lines = text.trimEnd().split('\n')
    const damaged = {
      byte: text.replace('"amount":41', '"amount":42'),
      missing: [...lines.slice(0, 5), ...lines.slice(6), ''].join('\n'),
      order: [...lines.slice(0, 5), lines[6], lines[5], ...lines.slice(7), ''].join('\n'),
      twice: [...lines.slice(0, 5), lines[4], ...lines.slice(5), ''].join('\n'),
      cut: `${lines.slice(0, -1).join('\n')}\n`,
      torn: text.slice(0, text.length / 2),
      more: `${text}{"kind":"blob"}\n`,
      empty: '',
    }
    await another(async (flow, name) => {
      for (const [how, content] of Object.entries(damaged)) {
        const path = join(folder, `${how}.jsonl`)
        writeFileSync(path, content)
        expect([how, await rejection(flow.import(path))]).toMatchObject([how, { code: 'bad_archive' }])
      }
      const zst = readFileSync(join(folder, 'all.jsonl.zst'))
      writeFileSync(join(folder, 'torn.jsonl.zst'), zst.subarray(0, zst.length - 9))
      expect(await rejection(flow.import(join(folder, 'torn.jsonl.zst')))).toMatchObject({ code: 'bad_archive' })
      writeFileSync(join(folder, 'newer.jsonl'), text.replace('"v":2', '"v":3'))
      expect(await rejection(flow.import(join(folder, 'newer.jsonl')))).toMatchObject({ code: 'newer_version' })
      expect(
        await rejection(connect({ servers: server.url, namespace: name }).then((one) => one.runs())),
      ).toMatchObject({
        code: 'no_namespace',
      })
    })
  })
})

describe('an archive of some runs', () => {
  it('has those that were asked for, and what they refer to', async () => {
    const { flow } = stage
    const to = join(folder, 'some.jsonl')
    const [requested] = await flow.runs({ limit: 100 }).then((all) => all.filter(({ id }) => id === runs.reusing.id))
    const since = requested?.requestedAt ?? new Date(0)
    await flow.export({ to, since })
    expect(idsOf(to).toSorted()).toEqual([runs.reusing, runs.keyed, runs.late].map(({ id }) => id).toSorted())
    await flow.export({ to, until: since, pipelines: ['shop'] })
    expect(idsOf(to)).toHaveLength(7)
    await flow.export({ to, pipelines: ['other'] })
    expect(idsOf(to)).toEqual([])
    await flow.export({ to, runs: [runs.reusing.id, runs.gated.id] })
    expect(idsOf(to).toSorted()).toEqual([runs.reusing, runs.gated].map(({ id }) => id).toSorted())
    await another(async (copy) => {
      await copy.import(to)
      expect(await copy.run(runs.reusing.id).result()).toBe(2)
      expect(await copy.value(odd, { run: runs.reusing.id })).toMatchObject({ value: ODD })
      expect(await copy.run(runs.plain.id).view()).toBeUndefined()
      expect(await copy.gates.getByCorrelationKey(`asks-${runs.gated.id}`)).toMatchObject({ status: 'signaled' })
    })
  })

  it('has no run that has not ended, unless that is asked for', async () => {
    const { flow } = stage
    const to = join(folder, 'open.jsonl')
    const run = await flow.materialize(asks)
    await until('the gate is open', async () => (await flow.gates.list(run.id)).length === 1)
    expect(await rejection(flow.export({ to, runs: [run.id] }))).toMatchObject({ code: 'run_open' })
    expect(await flow.export({ to, pipelines: ['shop'] })).toMatchObject({ runs: 10, open: 0, left: 1 })
    expect(await flow.export({ to, pipelines: ['shop'], open: true })).toMatchObject({ runs: 11, open: 1, left: 0 })
    await another(async (copy) => {
      expect(await rejection(copy.import(to))).toMatchObject({ code: 'run_open' })
      expect(await copy.import(to, { skipOpen: true })).toMatchObject({ runs: 10, left: 1 })
      expect(await copy.run(run.id).view()).toBeUndefined()
    })
    await run.cancel()
    await rejection(run.result())
  })

  it('names what is wrong with a selection or a place', async () => {
    const { flow } = stage
    const to = join(folder, 'none.jsonl')
    for (const [options, text] of [
      [{ to }, 'say which runs'],
      [{ to, all: true, runs: ['0-a'] }, 'say which runs'],
      [{ to, runs: [] }, 'runs'],
      [{ to, since: new Date('x') }, 'since'],
      [{ to: 's3://only', all: true }, 's3://BUCKET/KEY'],
      [{ to: 'ftp://host/a', all: true }, 'no place that is known'],
      [{ to: '', all: true }, 'export: to'],
    ] as const)
      expect((await rejection(flow.export(options as ExportOptions))).message).toContain(text)
    expect(await rejection(flow.export({ to, runs: ['0-mx1jdmu7-fe6392e40fb2a673'] }))).toMatchObject({
      code: 'not_found',
    })
    expect(readdirSync(folder)).not.toContain('none.jsonl')
  })
})

describe('what retention archives', () => {
  it('is confirmed by its checksum, and imported from several archives at once', async () => {
    await using s3 = await startS3('kept')
    const { client } = s3
    const connection = await Connection.open({ servers: server.url })
    const source = { connection, names: namesOf(stage.namespace), shards: 2 }
    const at = { at: new Date(), client }
    const some = [runs.plain.id, runs.odd.id, runs.large.id]
    const first = await archiveRuns(source, `file:${folder}/kept/`, some, at)
    expect(await archiveRuns(source, `file:${folder}/kept`, some.toReversed(), at)).toEqual(first)
    const both = [first, await archiveRuns(source, 's3://kept/runs', [runs.odd.id, runs.scattered.id], at)]
    await connection.close()
    for (const receipt of both) await confirmArchive(receipt, client)
    await another(async (copy) => {
      const report = await copy.import(
        both.map(({ to }) => to),
        { client },
      )
      expect(report).toMatchObject({ runs: 4, twice: 1 })
      expect(await copy.run(runs.odd.id).result()).toEqual(ODD)
      expect((await copy.runs()).map(({ id }) => id).toSorted()).toEqual([...some, runs.scattered.id].toSorted())
    })
    const [key = '', bytes = new Uint8Array()] = [...s3.objects][0] ?? []
    s3.objects.set(key, bytes.slice(0, -1))
    expect(await rejection(confirmArchive(both[1] as ArchiveReceipt, client))).toMatchObject({ code: 'bad_archive' })
  })
})
