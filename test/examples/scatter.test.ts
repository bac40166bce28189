import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import { startSite } from '../../examples/crawler/site.ts'
import { scratchFolder } from '../kit/scratch.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const scratch = scratchFolder()
afterAll(() => scratch[Symbol.dispose]())

describe('the crawler example', () => {
  it('finds the broken links of its site, asks politely, and ends with the table of its scatters', async () => {
    const node = join(ROOT, 'node_modules', '.bin', 'node')
    const args = [join(ROOT, 'examples', 'scatter.ts'), '--dir', join(scratch.path, 'nats')]
    const { stdout, stderr } = await promisify(execFile)(node, args, { timeout: 55_000 })
    expect(stderr).toBe('')

    const number = (pattern: RegExp): number => Number(pattern.exec(stdout)?.[1] ?? Number.NaN)
    const total = number(/a site of (\d+) pages/)
    expect(total).toBeGreaterThan(40)
    expect(number(/^(\d+) pages with \d+ links/m)).toBe(total)
    expect(number(/(\d+) pages came at a later try/)).toBeGreaterThan(0)

    // Each link that is broken, and why. What is gone is asked for once; a broken page as often as
    // may be.
    const broken = [...stdout.matchAll(/^ {2}(\/\S+)\n {4}(\d+) .*; linked from (.*)$/gm)]
    expect(broken).toHaveLength(number(/(\d+) are broken/))
    // Those that the site plants, and those that the documents have by themselves.
    const gone = broken.filter(([, , why]) => why === '404')
    expect(gone.filter(([, url]) => url?.startsWith('/moved/')).length).toBeGreaterThan(0)
    expect(gone.every(([, , , from]) => from?.startsWith('/'))).toBe(true)
    const failed = broken.length - gone.length
    expect(failed).toBeGreaterThan(0)

    const perSecond = number(/pages at a time, and (\d+) a second/)
    const atOnce = number(/at most (\d+) pages at a time, and/)
    expect(number(/at most (\d+) pages at a time and \d+ requests/)).toBeLessThanOrEqual(atOnce)
    // They start evenly spaced and arrive nearly so.
    expect(number(/and (\d+) requests in one second/)).toBeLessThanOrEqual(perSecond * 1.25)

    const row = (name: string): string[] => new RegExp(`^${name} +(.+)$`, 'm').exec(stdout)?.[1]?.split(/ {2,}/) ?? []
    expect(row('scatter')).toEqual(['pages', 'links'])
    expect(row('status')).toEqual(['partial_failure', 'completed'])
    expect(row('total')[0]).toBe(String(total))
    expect(row('failed')).toEqual([String(failed), '0'])
    expect(row('succeeded')[0]).toBe(String(total - failed))
  })

  it('has a site whose pages link to each other, with some trouble that is always the same', async () => {
    await using site = await startSite(ROOT)
    const get = async (path: string): Promise<[number, string]> => {
      const response = await fetch(site.url + path)
      return [response.status, await response.text()]
    }
    const paths: string[] = []
    for (let page = 1; ; page++) {
      const [, list] = await get(`/sitemap?page=${page}`)
      if (list === '') break
      paths.push(...list.trim().split('\n'))
    }
    expect(paths).toHaveLength(site.pages)
    expect(new Set(paths).size).toBe(site.pages)
    const first = new Map(await Promise.all(paths.map(async (path) => [path, (await get(path))[0]] as const)))
    const second = new Map(await Promise.all(paths.map(async (path) => [path, await get(path)] as const)))
    expect(new Set(first.values())).toEqual(new Set([200, 500, 503]))
    expect(new Set([...second.values()].map(([status]) => status))).toEqual(new Set([200, 500]))
    for (const [, [status, text]] of second) {
      if (status !== 200) continue
      const links = [...text.matchAll(/<a href="([^"]+)"/g)].map(([, link = '']) => link)
      // Its neighbours are there; what the document links to need not be.
      expect(links.slice(0, 2).filter((link) => paths.includes(link))).toHaveLength(2)
    }
  })
})
