import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, expect, it } from 'vitest'
import { scratchFolder } from '../kit/scratch.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const scratch = scratchFolder()
afterAll(() => scratch[Symbol.dispose]())

it('the example of orders makes one invoice for each, and refuses those without a price', {
  timeout: 180_000,
}, async () => {
  const node = join(ROOT, 'node_modules', '.bin', 'node')
  const dir = join(scratch.path, 'nats')
  const args = [join(ROOT, 'examples', 'orders.ts'), '--orders', '40', '--json', '--dir', dir]
  const { stdout } = await promisify(execFile)(node, args, { timeout: 55_000 })
  expect(JSON.parse(stdout)).toMatchObject({
    published: 50,
    heard: 36,
    orders: 36,
    refused: 4,
    reason: expect.stringMatching(/^message: input\.order\.euros/),
  })
})
