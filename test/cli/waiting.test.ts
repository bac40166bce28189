import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace, openStage } from '../kit/stage.ts'
import { startCommand, type Where } from './kit.ts'

const INDEX = new URL('../../src/index.ts', import.meta.url).href
const scratch = scratchFolder()
const server = useServer({ syncInterval: 'default' })
beforeAll(async () => {
  writeFileSync(
    join(scratch.path, 'p.ts'),
    `import { asset, pipeline } from '${INDEX}'
export const p = pipeline('p', [asset('one', { execute: () => 1 })])`,
  )
})
afterAll(async () => {
  scratch[Symbol.dispose]()
})

it('flowstone run says that an engine is missing, then that a worker is, and ends when both are there', async () => {
  await using stage = await openStage(server.url, [], { namespace: freshNamespace(), engine: false, worker: false })
  const where: Where = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: stage.namespace } }
  await using following = startCommand(['run', 'one', '--file', 'p.ts'], where)
  await following.says('waits for an engine: none is active; start one with flowstone engine')
  await stage.flow.engine()
  await following.says('waits for a worker: none of pipeline p answers; start one with flowstone worker FILE')
  await using worker = startCommand(['worker', 'p.ts'], where)
  const { code, stdout } = await following.ended
  expect([code, stdout]).toEqual([0, '1\n'])
  expect(worker.child.exitCode).toBeNull()
})
