import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, headers, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Prover } from '../../src/engine/proof/prover.ts'
import { shrinkProof } from '../../src/engine/proof/shrink.ts'
import { blocksOf } from '../../src/engine/proof/verify.ts'
import { asset, type Flow, type ProofReport, pipeline, verifyArchive } from '../../src/index.ts'
import { ServerClock } from '../../src/log/clock.ts'
import { Connection } from '../../src/log/connection.ts'
import { decodeBlock, decodeDetail, type LeftRecord } from '../../streams/proof.ts'
import { newProofKey, parseProofKey } from '../../streams/proof-keys.ts'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { listeningLogger, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection

beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
const folder = mkdtempSync(join(tmpdir(), 'flowstone-proof-'))
afterAll(async () => {
  rmSync(folder, { recursive: true })
  await nc.close()
})

const first = asset('first', { execute: async () => 1 })
const all = asset('all', {
  scatter: async () => [1, 2, 3],
  execute: async ({ scatterKey }) => Number(scatterKey) * 2,
  gather: async () => 'done',
})
const last = asset('last', { dependsOn: [first, all], execute: async () => 3 })
const shop = pipeline('shop', [first, all, last])

async function verified(flow: Flow, options?: Parameters<Flow['proof']['verify']>[0]): Promise<ProofReport> {
  const [report] = await flow.proof.verify(options)
  if (!report) throw new Error('there is no report')
  return report
}

async function materialize(flow: Flow, count = 1): Promise<string> {
  let id = ''
  for (let i = 0; i < count; i++) {
    const run = await flow.materialize(last)
    await run.result()
    id = run.id
  }
  return id
}

it('each fact is in a block, and one that is taken away or changed is named', async () => {
  const key = newProofKey()
  const { publicKey } = parseProofKey('key', key)
  await using stage = await openStage(server.url, shop, { proof: { key } })
  const { flow, namespace } = stage
  const jsm = await jetstreamManager(nc)
  const run = await materialize(flow, 2)
  await stage.engine?.stop()
  const whole = await verified(flow, { keys: [publicKey] })
  const { state } = await jsm.streams.info(`${namespace}_LOG_0`)
  expect(whole).toMatchObject({ problems: 0, uncovered: 0, newer: 0, left: 0, covers: { from: 1 } })
  expect(whole.intact).toBe(whole.facts)
  expect(whole.intact).toBe(state.messages)
  expect(whole.signedTo).toBe(whole.blocks - 1)

  // Another engine goes on where that one stopped.
  const checkpoint = await flow.proof.checkpoint()
  expect(checkpoint).toMatchObject([{ ns: namespace, shard: 0, n: whole.blocks - 1, key: publicKey }])
  const next = await flow.engine({ proof: { key } })
  await next.active
  await materialize(flow)
  await next.stop()
  const more = await verified(flow, { keys: [publicKey], since: checkpoint })
  expect(more).toMatchObject({ problems: 0, newer: 0, covers: { from: 1 }, gaps: [] })
  expect(more.blocks).toBeGreaterThan(whole.blocks)
  expect(more.intact).toBe((await jsm.streams.info(`${namespace}_LOG_0`)).state.messages)

  const path = `run.${run}.finished`
  await jsm.streams.purge(`${namespace}_LOG_0`, { filter: `${namespace}.log.0.${path}` })
  const removed = await verified(flow)
  expect(removed.findings).toMatchObject([{ problem: 'fact_removed', path }])
  expect(removed.intact).toBe(more.intact - 1)

  // The log, made anew of the same messages, but for one byte.
  const stream = `${namespace}_LOG_0`
  const messages = await everything(stream)
  const { config } = await jsm.streams.info(stream)
  await jsm.streams.delete(stream)
  await jsm.streams.add({ ...config, deny_delete: false, metadata: {} })
  for (let seq = 1; seq <= (messages.at(-1)?.seq ?? 0); seq++) {
    const message = messages.find((one) => one.seq === seq)
    const h = headers()
    h.set('Content-Type', message?.type ?? '')
    await jetstream(nc).publish(message?.subject ?? `${namespace}.log.0.x.timer`, message?.data ?? '', { headers: h })
  }
  const rebuilt = await verified(flow)
  expect(rebuilt.findings).toContainEqual(expect.objectContaining({ problem: 'log_replaced' }))
  const named = rebuilt.findings.flatMap(({ problem, seq }) => (problem === 'fact_changed' ? [seq] : []))
  // The server gave all of them other times.
  expect(named.length).toBe(more.intact - 1)

  // The end of the chain is cut off: nothing but the checkpoint knows.
  const { state: proof } = await jsm.streams.info(`${namespace}_PROOF`)
  const kept = await flow.proof.checkpoint()
  await jsm.streams.deleteMessage(`${namespace}_PROOF`, proof.last_seq)
  expect((await verified(flow, { since: kept })).findings).toContainEqual(
    expect.objectContaining({ problem: 'checkpoint_missing', block: more.blocks - 1 }),
  )
})

it('of sealed runs nothing is found, nor of facts that leave by rule', async () => {
  await using stage = await openStage(server.url, shop, { sealAfter: '1s' })
  const { flow, namespace } = stage
  const jsm = await jetstreamManager(nc)
  // A message that is no fact leaves the log with the runs around it. So do triggers.
  await jetstream(nc).publish(`${namespace}.log.0.run.0-nobody.unknown`, 'no fact')
  await jetstream(nc).publish(`${namespace}.trigger.shop.first`, '{}')
  await jetstream(nc).publish(`${namespace}.trigger.shop.nothing`, '{}')
  await materialize(flow, 2)
  const left = async (filter: string): Promise<number> => {
    const info = await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter: `${namespace}.log.0.${filter}` })
    return Object.keys(info.state.subjects ?? {}).length
  }
  await until(
    'runs and triggers have left the log',
    async () => (await left('run.>')) + (await left('trigger.*.received')) <= 1,
  )
  const report = await verified(flow)
  expect(report.findings).toEqual([])
  expect(report.left).toBe(3)
  expect(report.intact).toBe(report.facts - 3)
  expect(report.facts).toBeGreaterThan(20)

  // An archive, and the blocks beside it.
  const [archive, blocks] = [join(folder, 'runs.jsonl'), join(folder, 'runs.proof.gz')]
  await flow.export({ to: archive, all: true })
  await flow.proof.export(blocks)
  const [archived] = await verifyArchive(archive, { blocks, since: await flow.proof.checkpoint() })
  expect(archived).toMatchObject({ problems: 0, newer: 0 })
  expect(archived?.intact).toBeGreaterThan(20)
  const lines = readFileSync(archive, 'utf8').split('\n')
  const at = lines.findIndex((line) => line.includes('"run.finished"'))
  const changed = String(lines[at]).replace('"succeeded"', '"cancelled"')
  expect(changed).not.toBe(lines[at])
  const seq = Number(/"seq":(\d+)/.exec(changed)?.[1])
  for (const [problem, ...rest] of [['fact_changed', changed], ['fact_removed']] as const) {
    writeFileSync(archive, lines.toSpliced(at, 1, ...rest).join('\n'))
    const [found] = await verifyArchive(archive, { blocks })
    expect(found?.findings.map((one) => [one.problem, one.seq])).toEqual(
      expect.arrayContaining([
        [problem, seq],
        ['archive_damaged', undefined],
      ]),
    )
    expect(found?.problems).toBe(2)
  }

  // A pack of the history is gone.
  const pack = `$KV.${namespace}_history_0.pack.0`
  await jsm.streams.purge(`KV_${namespace}_history_0`, { filter: pack })
  const damaged = await verified(flow)
  expect(damaged.findings.map(({ problem }) => problem)).toContain('fact_removed')
  expect(damaged.findings.every(({ path }) => path !== undefined)).toBe(true)
})

it('a block whose facts are all pruned keeps its root only, and the proof says so', async () => {
  await using stage = await openStage(server.url, shop, { sealAfter: '1s' })
  const { flow, namespace } = stage
  const jsm = await jetstreamManager(nc)
  const proof = `${namespace}_PROOF`
  const details = async (): Promise<number> => {
    const filter = `${namespace}.proof.0.detail`
    return (await jsm.streams.info(proof, { subjects_filter: filter })).state.subjects?.[filter] ?? 0
  }
  const sealed = async (): Promise<void> =>
    until('the runs have left the log', async () => {
      const filter = `${namespace}.log.0.run.*.requested`
      const info = await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter: filter })
      return Object.keys(info.state.subjects ?? {}).length === 0
    })
  // They register the pipeline, which stays.
  await materialize(flow)
  await sealed()
  await materialize(flow, 2)
  await sealed()
  const kept = await materialize(flow)
  await sealed()
  const before = await verified(flow)
  const listed = await details()
  await flow.retention.prune({ olderThan: '1s' })
  await until('lists of facts have gone', async () => (await details()) < listed)
  const after = await verified(flow)
  expect(after).toMatchObject({ findings: [], gaps: [], covers: { from: 1 } })
  expect(after.blocks).toBeGreaterThan(before.blocks)
  expect(after.left).toBeGreaterThan(before.left + 10)
  // The newest values stay, and can be checked.
  expect(await flow.retention.remains(kept)).toBeDefined()
  expect(after.intact).toBeGreaterThan(0)

  // A list goes of which the proof says nothing: that of a value which stays.
  const lists = (await everything(proof)).filter(({ subject }) => subject.endsWith('.detail'))
  const isValue = (path: string): boolean => path.endsWith(`.${kept}.end.materialized`)
  const pathsOf = ({ data }: Message): readonly string[] => decodeDetail(new Uint8Array(data)).paths
  const list = lists.findLast((one) => pathsOf(one).some(isValue))
  if (!list) throw new Error('no list has a value')
  await jsm.streams.deleteMessage(proof, list.seq)
  const problems = (await verified(flow)).findings.map(({ problem }) => problem)
  // Facts that are all there give the root, as they did. The last one of the log stays, too.
  const stays = (path: string): boolean => isValue(path) || path === `run.${kept}.finished`
  expect(problems).toEqual(pathsOf(list).every(stays) ? [] : ['facts_differ'])
})

it('a proof that was off says what it does not cover, and still what leaves', async () => {
  await using stage = await openStage(server.url, shop, { proof: false })
  const { flow } = stage
  await materialize(flow)
  expect((await verified(flow)).findings).toMatchObject([{ problem: 'no_proof' }])
  await stage.engine?.stop()
  const next = await flow.engine()
  await next.active
  await materialize(flow)
  await next.stop()
  const report = await verified(flow)
  expect(report).toMatchObject({ problems: 0, signedTo: undefined })
  expect(report.covers?.from).toBeGreaterThan(1)
})

interface Message {
  readonly seq: number
  readonly subject: string
  readonly type: string
  readonly data: Uint8Array
}

async function everything(stream: string): Promise<Message[]> {
  const consumer = await jetstream(nc).consumers.get(stream)
  const { num_pending: count } = await consumer.info()
  const found: Message[] = []
  for await (const message of await consumer.fetch({ max_messages: count, expires: 5000 })) {
    const { seq, subject, data } = message
    found.push({ seq, subject, data, type: message.headers?.get('Content-Type') ?? '' })
    if (found.length === count) break
  }
  return found
}

it('facts that leave in any number of stretches are recorded, in several blocks', async () => {
  await using stage = await openStage(server.url, shop)
  const connection = await Connection.open({ servers: server.url })
  try {
    const names = namesOf(stage.namespace)
    await stage.engine?.stop()
    const clock = new ServerClock(connection, names.log(0))
    await clock.ready()
    const settings = { isOn: true, key: undefined, everyMs: 100, from: 1, sealedTo: async () => 0 }
    const prover = new Prover({ connection, names, shard: 0, clock, logger: listeningLogger(), ...settings })
    prover.start()
    // Not like each other, so they are hardly compressed.
    const seqs = Array.from({ length: 300_000 }, (_, i) => [9 * i + ((i * i) % 7), 9 * i + 7] as const)
    const folded = { why: 'folded', path: 'schedule.*.*.due.*', upTo: 7 } as const
    await prover.leaving([{ why: 'pruned', seqs }, folded])
    prover.stop()
    const left: LeftRecord[] = []
    for await (const { head } of blocksOf({ connection, names, shard: 0 })) left.push(...(decodeBlock(head).left ?? []))
    const found = left.flatMap((record) => ('seqs' in record ? record.seqs : []))
    expect(JSON.stringify(found) === JSON.stringify(seqs)).toBe(true)
    expect(left.at(-1)).toEqual(folded)
  } finally {
    await connection.close()
  }
})

it('a block keeps its list while the log has one of its facts, also where a copy of the log is behind', async () => {
  await using stage = await openStage(server.url, shop)
  await materialize(stage.flow)
  const connection = await Connection.open({ servers: server.url })
  try {
    const names = namesOf(stage.namespace)
    await until('it is proven', async () => (await verified(stage.flow)).newer === 0)
    const jsm = await jetstreamManager(nc)
    const empty = `${stage.namespace}-behind`
    await jsm.streams.add({ name: empty, subjects: [empty], allow_direct: true })
    // As a copy answers that has nothing yet.
    const behind = new Proxy(connection.nc, {
      get: (of, name) => {
        const found: unknown = Reflect.get(of, name, of)
        if (typeof found !== 'function') return found
        if (name !== 'publish') return found.bind(of)
        return (subject: string, ...rest: [Uint8Array]) =>
          of.publish(subject.replace(`DIRECT.GET.${names.log(0)}`, `DIRECT.GET.${empty}`), ...rest)
      },
    })
    const read: Connection['read'] = async (ask) => await ask(behind)
    const left: LeftRecord[] = []
    const shrinking = shrinkProof({
      connection: { nc: connection.nc, read } as unknown as Connection,
      ...{ names, shard: 0, shards: 1, logger: listeningLogger(), isStopped: () => false, provenTo: () => 1 },
      leaving: async (records) => void left.push(...records),
    })
    for await (const _ of shrinking);
    expect(left).toEqual([])
  } finally {
    await connection.close()
  }
})
