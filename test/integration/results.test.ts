import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, freshNamespace, openStage } from '../kit/stage.ts'

const server = useServer({ syncInterval: 'default' })

async function logBytes(namespace: string): Promise<number> {
  const nc = await connectNats({ servers: server.url })
  const { state } = await (await jetstreamManager(nc)).streams.info(`${namespace}_LOG_0`)
  await nc.close()
  return state.bytes
}

describe('results', () => {
  it('results and keys are compressed on the log where that makes them smaller, and read like any others', async () => {
    const line = 'The quick brown fox jumps over the lazy dog. '.repeat(20)
    const wordy = asset('wordy', {
      scatter: () => Array.from({ length: 500 }, (_, i) => `${line}${i}`),
      execute: ({ scatterKey, index }) => ({ said: scatterKey, index, at: new Date(index) }),
    })
    await using stage = await openStage(server.url, pipeline('wordy', [wordy]))
    const run = await stage.flow.materialize(wordy)
    const results = await run.result()
    const expected = Array.from({ length: 500 }, (_, i) => {
      return { key: `${line}${i}`, value: { said: `${line}${i}`, index: i, at: new Date(i) } }
    })
    expect(results).toEqual(expected)
    // Keys and values are 900 KB.
    expect(await logBytes(stage.namespace)).toBeLessThan(100_000)
    const facts = await factsOf(stage.flow, run.id)
    const items = facts.filter(({ kind }) => kind === 'scatter.items').flatMap(({ data }) => Reflect.get(data, 'keys'))
    expect(items).toEqual(expected.map(({ key }) => key))
    const values = facts
      .filter(({ kind }) => kind === 'scatter.outcomes')
      .flatMap(({ data }) => Reflect.get(data, 'values'))
    expect(values).toHaveLength(500)
    expect(values).toContainEqual(expected[7]?.value)
  })

  it('100,000 of 1 KB each are streamed through a gather that never holds half of them', async () => {
    const program = fileURLToPath(new URL('programs/stream-gather.ts', import.meta.url))
    const args = ['--max-semi-space-size=4', '--expose-gc', program, server.url, freshNamespace(), '100000']
    const { stdout } = await promisify(execFile)(process.execPath, args)
    const { seen, before, most } = JSON.parse(stdout)
    expect(seen).toBe(100_000)
    expect(most - before).toBeLessThan(50)
  })
})
