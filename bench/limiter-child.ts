/**
 * One of several processes that take tokens of the same bucket. It reports when it is ready, starts
 * on a message, and reports when it is done.
 */
import { createInterface } from 'node:readline'
import { z } from 'zod'
import { connect } from '../src/index.ts'
import { perSecond, WIDE } from './limiter.ts'

const settings = z
  .object({ url: z.string(), namespace: z.string(), bucket: z.string(), callers: z.int(), n: z.int() })
  .parse(JSON.parse(process.argv.at(-1) ?? ''))
const { url, namespace, bucket, callers, n } = settings

await using flow = await connect({ servers: url, namespace })
await flow.limiter.peek(bucket, WIDE)
// Node compiles what is run often; a process that was at it for a while is what is measured.
await perSecond(500 * callers, callers, () => flow.limiter.check(`warm-${process.pid}`, WIDE))
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
process.stdout.write('ready\n')
await lines.next()
await perSecond(n, callers, () => flow.limiter.check(bucket, WIDE))
process.stdout.write('done\n')
await lines.next()
