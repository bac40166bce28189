/**
 * A polite crawler: looks for broken links on a small site that this example serves itself, made of
 * the project's documents.
 *
 *     npm run example:scatter
 *
 * Shows a scatter over an item reader with maxConcurrent and a rate limit that two scatters share.
 * Retries wait as long as the site asks for. A share of the instances fails for good (failureMode
 * partial), and batches have errors of their own. In the end it shows a scatter's status.
 */
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { connect, type ScatterStatus } from '../src/index.ts'
import { startServer } from '../src/server/index.ts'
import { crawler, POLITE, type Report } from './crawler/pipeline.ts'
import { startSite } from './crawler/site.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const { values: args } = parseArgs({ options: { dir: { type: 'string', default: `${ROOT}.flowstone/crawler` } } })
const say = (line = ''): void => console.log(line)

const server = await startServer({ dir: args.dir })
try {
  await using site = await startSite(ROOT)
  say(`a site of ${site.pages} pages at ${site.url}`)
  say(`two workers together ask for at most ${POLITE.atOnce} pages at a time, and ${POLITE.perSecond} a second\n`)
  const flow = await connect({ servers: server.url, namespace: 'crawler' })
  try {
    const { report, pipeline } = crawler(flow.limiter)
    await flow.engine()
    for (let i = 0; i < 2; i++) await flow.worker(pipeline, { concurrency: 10 })
    const run = await flow.materialize(report, { partition: site.url, upstream: 'all' })

    let last = ''
    let saidAt = 0
    for await (const { scatters } of run.watch()) {
      const line = scatters.map(progress).join('   ')
      // A line now and then, for a screen that scrolls and for a file alike.
      if (line === last || performance.now() - saidAt < 400) continue
      last = line
      saidAt = performance.now()
      say(line)
    }
    show(await run.result(), site.url)
    const { requests, atOnce, inOneSecond } = site.seen
    say(
      `The site saw ${requests} requests, at most ${atOnce} pages at a time and ${inOneSecond} requests in one second.\n`,
    )
    const statuses = [await flow.scatter.status(`${run.id}.pages`), await flow.scatter.status(`${run.id}.links`)]
    for (const row of table(statuses)) say(row)
  } finally {
    await flow.close()
  }
} finally {
  await server.stop()
}

function progress({
  asset,
  total,
  succeeded,
  failed,
}: {
  asset: string
  total?: number | undefined
  succeeded: number
  failed: number
}): string {
  return `${asset} ${succeeded + failed} of ${total ?? '?'}${failed > 0 ? `, ${failed} failed` : ''}`
}

function show({ pages, retried, links, broken }: Report, address: string): void {
  say(`\n${pages} pages with ${links} links; ${retried} pages came at a later try. ${broken.length} are broken:\n`)
  for (const { url, why, linkedFrom } of broken) {
    const [first = 'no page that could be read', ...more] = linkedFrom.map((from) => from.replace(address, ''))
    say(`  ${url.replace(address, '')}`)
    say(`    ${why}; linked from ${first}${more.length > 0 ? ` and ${more.length} more` : ''}`)
  }
  say()
}

/** One column for each scatter, one row for each thing that is known of it. */
function table(statuses: readonly ScatterStatus[]): string[] {
  const seconds = ({ startedAt, closedAt }: ScatterStatus): string =>
    `${(((closedAt ?? new Date()).getTime() - startedAt.getTime()) / 1000).toFixed(1)} s`
  const rows: [string, (status: ScatterStatus) => unknown][] = [
    ['scatter', ({ id }) => id.slice(id.indexOf('.') + 1)],
    ['status', ({ status }) => status],
    ['total', ({ total }) => total],
    ['succeeded', ({ succeeded }) => succeeded],
    ['failed', ({ failed }) => failed],
    ['timed out', ({ timedOut }) => timedOut],
    ['pending', ({ pending }) => pending],
    ['progress', ({ progress: percent }) => `${percent} %`],
    ['a second', ({ perSecond }) => perSecond],
    ['more may fail', ({ failuresLeft }) => failuresLeft ?? '?'],
    ['took', seconds],
  ]
  return rows.map(([name, of]) => name.padEnd(15) + statuses.map((status) => String(of(status)).padStart(18)).join(''))
}
