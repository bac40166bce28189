import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { headers } from '@nats-io/nats-core'
import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { encodeJson } from '../../streams/codec.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer()

it('an engine that meets a fact of a newer version says so once, and does not spin', async () => {
  const one = asset('one', { execute: () => 1 })
  await using stage = await openStage(server.url, pipeline('newer', [one]))
  const { flow, namespace, engine, lines } = stage
  const run = await flow.materialize(one)
  expect(await run.result()).toBe(1)
  const standby: unknown[] = []
  const listen = (event: unknown): void => void standby.push(event)
  subscribe('flowstone:engine.standby', listen)
  try {
    const nc = await connectNats({ servers: server.url })
    const subject = `${namespace}.log.0.run.${run.id}.cancel_requested`
    const h = headers()
    h.set('Content-Type', 'application/json')
    await nc.request(subject, encodeJson({ v: 99, fact: 'run.cancel_requested' }), { headers: h, timeout: 5000 })
    await nc.close()
    await until('the engine refuses to work', () => engine?.refused?.code === 'newer_version')
    // It looks again every 2 s.
    await until('the engine looked again', () => standby.length >= 3)
    const said = lines.filter((line) => line.includes('has version 99'))
    expect(said).toHaveLength(1)
    expect(said[0]).toContain('upgrade it')
  } finally {
    unsubscribe('flowstone:engine.standby', listen)
  }
  expect(standby.length).toBeLessThanOrEqual(4)
})
