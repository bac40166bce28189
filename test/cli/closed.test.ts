/** A command whose connection is closed for good ends, so that its supervisor starts it again. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createUser } from '@nats-io/nkeys'
import { expect, it } from 'vitest'
import { rawNats } from '../kit/raw-nats.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace } from '../kit/stage.ts'
import { startCommand, writeModule } from './kit.ts'

const PIPELINE = `
import { asset, pipeline } from 'flowstone'
export default pipeline('p', [asset('one', { execute: () => 1 })])
`

it.each([
  ['engine', ['engine'], 'engine-\\S+ active'],
  ['worker', ['worker', 'pipeline.ts'], 'worker-\\S+ active'],
  ['http', ['http', '--port', '0'], 'gates at http'],
])('flowstone %s ends with exit code 1 and says why when its connection is closed for good', async (_, args, ready) => {
  using scratch = scratchFolder()
  const user = createUser()
  await using server = await rawNats({ authorization: { users: [{ nkey: user.getPublicKey() }] } })
  const seed = join(scratch.path, 'seed')
  writeFileSync(seed, user.getSeed())
  writeModule(scratch.path, 'pipeline.ts', PIPELINE)
  const env = {
    NATS_URL: server.url,
    FLOWSTONE_NAMESPACE: freshNamespace(),
    FLOWSTONE_GATE_SECRETS: `k1:${'s'.repeat(32)}`,
  }
  await using command = startCommand([...args, '--nkey', 'seed'], { cwd: scratch.path, env })
  await command.says(new RegExp(ready))

  // The client reads the file at each connect, and gives up when it cannot.
  rmSync(seed)
  await server.stop()
  await server.start()
  const { code, stderr } = await command.ended
  expect(code).toBe(1)
  expect(stderr).toContain('the connection to nats-server is closed for good: nkey: the file seed cannot be read')
  expect(stderr).not.toMatch(/^ {4}at /m)
})
