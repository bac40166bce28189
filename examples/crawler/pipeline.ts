/**
 * The crawler as three assets. The site's address is the run's partition, so the same pipeline
 * crawls any site.
 *
 *     pages    a scatter over the URLs of the site map: fetches each page, and gathers what links where
 *     links    a scatter over batches of the links that the site map does not have: does each lead anywhere?
 *     report   the broken links, and who has them
 */
import { asset, type Limiter, pipeline, RetryableError, TerminalError } from '../../src/index.ts'
import { batch, itemReader, itemResults, settleItems } from '../../src/items/index.ts'

export interface Broken {
  readonly url: string
  readonly why: string
  /** Pages that link there, as far as they could be read. */
  readonly linkedFrom: readonly string[]
}

export interface Report {
  readonly pages: number
  /** Pages that came only at a later try. */
  readonly retried: number
  readonly links: number
  readonly broken: readonly Broken[]
}

interface Fetched {
  readonly links: readonly string[]
  readonly attempt: number
}

/**
 * What the crawler may ask of the site: so many pages at a time, and so many requests a second,
 * evenly spaced, over all workers.
 */
export const POLITE = { atOnce: 6, perSecond: 40 } as const

const site = { bucket: 'site', limit: POLITE.perSecond, per: 'second', shape: 'smooth' } as const
const retry = { maxAttempts: 3, backoff: '200ms..1s' } as const

export function crawler(limiter: Limiter) {
  /**
   * For requests that are no instance of their own: they wait for the same bucket that instances
   * start by.
   */
  const politely: Get = (url, signal) => limiter.withLimit(site.bucket, site, () => get(url, signal), { signal })

  const pages = asset('pages', {
    scatter: (_, { partition = '' }) => siteMap(partition, politely),
    scatterOptions: {
      maxConcurrent: POLITE.atOnce,
      rateLimit: site,
      failureMode: 'partial',
      failureThreshold: 0.25,
      timeout: '10s',
      retry,
    },
    execute: async ({ scatterKey: url, attempt, signal }): Promise<Fetched> => {
      const page = await (await get(url, signal)).text()
      const links = [...page.matchAll(/<a href="([^"]+)"/g)].map(([, href = '']) => new URL(href, url).href)
      return { links: [...new Set(links)], attempt }
    },
    gather: async (results) => {
      const linkedFrom: Record<string, string[]> = {}
      const failed: { url: string; why: string }[] = []
      const urls: string[] = []
      let retried = 0
      for await (const result of results) {
        const { key: url } = result
        urls.push(url)
        if (result.status === 'failed') {
          failed.push({ url, why: result.error.message })
          continue
        }
        if (result.value.attempt > 1) retried += 1
        for (const link of result.value.links) linkedFrom[link] = [...(linkedFrom[link] ?? []), url]
      }
      return { urls, retried, failed, linkedFrom }
    },
  })

  const links = asset('links', {
    dependsOn: [pages],
    scatter: ({ pages: { urls, linkedFrom } }) => {
      const known = new Set(urls)
      const unknown = Object.keys(linkedFrom).filter((link) => !known.has(link))
      return batch(unknown, { maxItems: 5 })
    },
    // They ask the same site.
    scatterOptions: { maxConcurrent: POLITE.atOnce, retry },
    // A link that leads nowhere is a finding, and no failure of its batch.
    execute: ({ scatterKey: { items }, signal }) =>
      settleItems(items, (url) => politely(url, signal).then(() => true), { signal }),
    gather: async (results) => {
      const failed: { url: string; why: string }[] = []
      for await (const { item, error } of itemResults(results))
        if (error) failed.push({ url: item, why: error.message })
      return failed
    },
  })

  const report = asset('report', {
    dependsOn: [pages, links],
    execute: (_, { pages: { urls, retried, failed, linkedFrom }, links: dead }): Report => ({
      pages: urls.length,
      retried,
      links: Object.values(linkedFrom).reduce((sum, from) => sum + from.length, 0),
      broken: [...failed, ...dead].map(({ url, why }) => ({ url, why, linkedFrom: linkedFrom[url] ?? [] })),
    }),
  })

  return { report, pipeline: pipeline('crawler', [pages, links, report]) }
}

type Get = (url: string, signal: AbortSignal) => Promise<Response>

/**
 * The URLs of a site, which it lists page by page. A page of the list is a chunk, and its number
 * the cursor: whoever takes over goes on with the next.
 */
function siteMap(address: string, politely: Get) {
  return itemReader<string, { page: number }>({
    name: `site map of ${address}`,
    position: ({ page }) => `page ${page - 1}`,
    async *read(cursor = { page: 1 }, signal) {
      for (let { page } = cursor; ; page++) {
        const list = await (await politely(`${address}/sitemap?page=${page}`, signal)).text()
        const items = list.split('\n').filter(Boolean)
        if (items.length === 0) return
        yield { items: items.map((path) => address + path), cursor: { page: page + 1 } }
      }
    },
  })
}

/**
 * Says of an answer whether to come again: what is gone stays gone, and who is asked to wait waits
 * as long as the site says.
 */
async function get(url: string, signal: AbortSignal): Promise<Response> {
  const response = await fetch(url, { signal })
  if (response.ok) return response
  const why = `${response.status} ${await response.text()}`
  if (response.status === 404 || response.status === 410) throw new TerminalError(why)
  const after = response.headers.get('Retry-After')
  throw new RetryableError(why, after === null ? {} : { retryAfterMs: Number(after) * 1000 })
}
