/**
 * A small web site on this machine, made of the project's own documents: a page for each section,
 * and more for long ones. It is slow on purpose, and not quite well: some pages answer "come back
 * later" at first, some are broken for good, and some links lead nowhere. It keeps count of what is
 * asked of it.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

export interface Site extends AsyncDisposable {
  /** `http://127.0.0.1:…` */
  readonly url: string
  readonly pages: number
  readonly seen: Seen
}

/** What the site noticed of its visitors. */
export interface Seen {
  requests: number
  /** Most requests for pages that were there at the same time. */
  atOnce: number
  /** Most requests that began within any one second. */
  inOneSecond: number
}

interface Page {
  readonly title: string
  readonly text: string
}

const LIST_PAGE = 25
/** Few and long pages: to crawl them politely takes some seconds. */
const PAGE_LETTERS = 2500

export async function startSite(folder: string): Promise<Site> {
  const pages = pagesOf(folder)
  const paths = [...pages.keys()]
  const seen: Seen = { requests: 0, atOnce: 0, inOneSecond: 0 }
  const visits = new Map<string, number>()
  const begun: number[] = []
  let present = 0

  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://site')
    count()
    if (pathname === '/sitemap') {
      answerList(Number(searchParams.get('page') ?? 1), response)
      return
    }
    const visit = (visits.get(pathname) ?? 0) + 1
    visits.set(pathname, visit)
    present += 1
    seen.atOnce = Math.max(seen.atOnce, present)
    await sleep(30 + (troubleOf(pathname) % 60))
    present -= 1
    answerPage(pathname, visit, response)
  })

  function count(): void {
    seen.requests += 1
    const now = performance.now()
    begun.push(now)
    while ((begun[0] ?? now) < now - 1000) begun.shift()
    seen.inOneSecond = Math.max(seen.inOneSecond, begun.length)
  }

  function answerList(page: number, response: ServerResponse): void {
    const some = paths.slice((page - 1) * LIST_PAGE, page * LIST_PAGE)
    send(response, 200, some.map((path) => `${path}\n`).join(''))
  }

  function answerPage(path: string, visit: number, response: ServerResponse): void {
    const page = pages.get(path)
    const trouble = troubleOf(path)
    if (!page) send(response, 404, 'there is no such page')
    else if (trouble % 17 === 0) send(response, 500, 'this page is broken')
    else if (trouble % 5 === 0 && visit === 1) {
      response.setHeader('Retry-After', '1')
      send(response, 503, 'come back later')
    } else send(response, 200, html(page, path, paths))
  }

  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('the site has no port')
  return {
    url: `http://127.0.0.1:${address.port}`,
    pages: paths.length,
    seen,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    },
  }
}

function send(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { 'Content-Type': 'text/html; charset=utf-8' }).end(body)
}

/**
 * Every section of every document, by its path on the site; a long one goes on on further pages.
 */
function pagesOf(folder: string): Map<string, Page> {
  const pages = new Map<string, Page>()
  const documents = [
    ...['README.md', 'CHANGELOG.md'].map((name) => ({ name, path: join(folder, name) })),
    ...readdirSync(join(folder, 'docs')).map((name) => ({ name, path: join(folder, 'docs', name) })),
  ].filter(({ name }) => name.endsWith('.md'))
  for (const { name, path } of documents) {
    const document = `/${slug(name.slice(0, -3))}/`
    for (const section of readFileSync(path, 'utf8').split(/^(?=#{1,2} )/m)) {
      const [heading = '', ...lines] = section.split('\n')
      const title = heading.replace(/^#+ /, '')
      if (title === '') continue
      const begin = pages.has(document) ? document + slug(title) : document
      for (const [i, text] of parts(lines.join('\n')).entries())
        pages.set(i === 0 ? begin : `${begin.replace(/\/$/, '/more')}/${i + 1}`, { title, text })
    }
  }
  return pages
}

/** Paragraphs, put together until a page is full. */
function parts(text: string): string[] {
  const found = ['']
  for (const paragraph of text.split('\n\n')) {
    const last = found.at(-1) ?? ''
    if (last.length > PAGE_LETTERS) found.push(paragraph)
    else found[found.length - 1] = `${last}\n\n${paragraph}`
  }
  return found
}

/**
 * A page links to its neighbours, to the documents that its text links to, and now and then to a
 * page that has moved away.
 */
function html({ title, text }: Page, path: string, paths: readonly string[]): string {
  const at = paths.indexOf(path)
  const links = [paths.at(at - 1), paths[(at + 1) % paths.length]]
  for (const [, target = ''] of text.matchAll(/\]\(([\w-]+)\.md[^)]*\)/g)) links.push(`/${slug(target)}/`)
  if (troubleOf(path) % 7 === 0) links.push(`/moved/${slug(title)}`)
  const anchors = links.map((link) => `<li><a href="${link}">${link}</a></li>`).join('\n')
  return `<!doctype html>\n<title>${escaped(title)}</title>\n<h1>${escaped(title)}</h1>\n<pre>${escaped(text)}</pre>\n<ul>\n${anchors}\n</ul>\n`
}

function slug(text: string): string {
  return text
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '')
    .slice(0, 40)
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}

/**
 * A number that is always the same for a path: its kind of trouble, and how slow it is. (FNV-1a.)
 */
function troubleOf(path: string): number {
  let hash = 0x811c9dc5
  for (const letter of path) hash = Math.imul(hash ^ (letter.codePointAt(0) ?? 0), 0x01000193)
  return hash >>> 0
}
