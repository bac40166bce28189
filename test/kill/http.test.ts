/** The process that serves HTTP dies in the middle of `POST /runs`. Who asks again gets one run. */
import { rmSync, writeFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { newApiKey } from '../../src/http/shared/api-keys.ts'
import { rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'
import { type Child, type Rig, startRig } from './rig.ts'

const { key, hash } = newApiKey()

interface Answer {
  readonly status: number
  readonly body: {
    readonly run: string
    readonly status: string
    readonly repeated?: boolean
    readonly value?: unknown
  }
}

async function serve(rig: Rig, env: Record<string, string> = {}): Promise<Child> {
  return await rig.start('http', { apiKeyHash: hash }, env)
}

/** Asks for what is the same run each time, but for its key. */
async function ask(server: Child, idempotencyKey: string, prefer = 'wait=30'): Promise<Answer> {
  const response = await fetch(`${String(server.of('ready')[0]?.url)}/runs/child_kills/made`, {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${key}`,
      'Content-Type': 'application/json',
      'Idempotency-Key': idempotencyKey,
      Prefer: prefer,
    },
    body: JSON.stringify({ partition: 'waits' }),
    signal: within(30_000),
  })
  return { status: response.status, body: (await response.json()) as Answer['body'] }
}

it('a client that asks again over HTTP gets its one run, wherever the process died that it had asked', async () => {
  await using rig = await startRig()
  const hold = `${rig.notes}.hold`
  writeFileSync(hold, '')
  await Promise.all([rig.engine(), rig.start('worker', {}, { KILL_CHILDREN: '1', KILL_HOLD: hold })])
  const requested = async (): Promise<number> => rig.facts('run.*.requested')

  const first = await serve(rig, { KILL_AT: 'before [.]requested' })
  await rejection(ask(first, 'one'))
  expect(await requested()).toBe(0)
  const second = await serve(rig, { KILL_AT: 'after [.]requested' })
  await rejection(ask(second, 'one'))
  expect(await requested()).toBe(1)
  const third = await serve(rig)
  expect(await ask(third, 'one', 'respond-async')).toMatchObject({ status: 202, body: { repeated: true } })
  const gone = rejection(ask(third, 'two'))
  await until('both are in their code', () => rig.noted().length === 2)
  await third.kill()
  await gone

  const fourth = await serve(rig)
  const asked = Promise.all(['one', 'one', 'two', 'two'].map((idempotencyKey) => ask(fourth, idempotencyKey)))
  rmSync(hold)
  const answers = await asked
  for (const answer of answers)
    expect(answer).toMatchObject({ status: 200, body: { status: 'succeeded', value: 'made for waits' } })
  const [one, again, two, twice] = answers.map(({ body }) => body.run)
  expect([again, twice]).toEqual([one, two])
  expect(two).not.toBe(one)
  expect(await requested()).toBe(2)
  expect(rig.noted()).toHaveLength(2)
  await rig.expectStateIsFold()
})
