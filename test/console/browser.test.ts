import { afterAll, beforeAll, expect, it } from 'vitest'
import { newApiKey } from '../../src/http/shared/api-keys.ts'
import { asset, pipeline } from '../../src/index.ts'
import { post, request } from '../http/kit.ts'
import { useServer } from '../kit/fixture.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'
import { type ConsoleStage, openConsole } from './kit.ts'

const server = useServer()
let shop: ConsoleStage
/** What a run of `published` waits for. */
const gateOf = { stock: Promise.withResolvers<void>() }

const stock = asset('stock', { execute: async () => await gateOf.stock.promise.then(() => 3) })
const checked = asset('checked', {
  dependsOn: [stock],
  execute: (ctx) => {
    ctx.log.warn('asks <b>somebody</b>', { products: 3 })
    return ctx.approval({
      message: 'Publish <b>3</b> products?',
      timeout: '1h',
      context: { by: '<img src=x onerror=alert(1)>' },
    })
  },
  onSignal: ({ log }, decision) => {
    log.info('has an answer')
    return decision
  },
})
const published = asset('published', { dependsOn: [checked], execute: () => 'done' })
const endless = asset('endless', {
  execute: async (ctx) => {
    await new Promise<void>((resolve) => ctx.signal.addEventListener('abort', () => resolve()))
  },
})
const broken = asset('broken', {
  retry: { maxAttempts: 1 },
  execute: () => {
    throw new Error('upload failed', { cause: new Error('413 Payload Too Large') })
  },
})

const urgent = asset('urgent', { execute: (ctx) => ctx.approval({ message: 'Sell all of it?', timeout: '5m' }) })

beforeAll(async () => {
  shop = await openConsole(server.url, pipeline('shop', [stock, checked, published, endless, broken, urgent]))
  await shop.stage.flow.request('shop/broken')
})

afterAll(() => shop?.[Symbol.asyncDispose]())

it('a run is started, moves, waits, is approved, and is seen as it was before', async () => {
  await using tab = await shop.tab('runs')
  const { page } = tab
  await tab.sees('broken')
  expect(await tab.violations()).toEqual([])
  await tab.press('Start a run')
  await page.type('#start-target', 'shop/published')
  await tab.press('Start')
  await tab.sees('stock', '.gantt')
  await tab.sees('running', 'h1')
  gateOf.stock.resolve()
  // Nobody loads the page again: it follows what happens.
  await tab.sees('at a gate', 'h1')
  await tab.sees('approval, 60 min left', '.gantt')
  await tab.sees('asks <b>somebody</b>', '.run-log-list')
  await until('the gate is on the log', async () => (await shop.stage.flow.gates.waiting()).length === 1)
  const before = new Date()
  await tab.open('inbox')
  await tab.sees('1 gate waits for an answer, the first for 60 min more.', 'h1')
  await tab.sees('Publish <b>3</b> products?', '.gate-title')
  await page.type('#gate-text', 'Looks fine')
  await page.keyboard.press('Escape')
  await page.keyboard.press('a')
  await tab.sees('Nobody waits for you.', 'h1')
  // It stays open, though it is in the list no longer.
  await tab.sees('Approved', '.gate-view')
  await tab.sees('Looks fine', '.gate-view')
  const [run] = await shop.stage.flow.runs({ target: 'shop/published' })
  await tab.open(`runs/${run?.id}`)
  await tab.sees('succeeded', 'h1')
  await tab.sees('has an answer', '.run-log-list')
  await tab.press('warn')
  await tab.sees('asks <b>somebody</b> products=3', '.run-log-list')
  expect(await page.$$('.run-log-row')).toHaveLength(1)
  await page.click('.run-log-row')
  await tab.sees('"products": 3', '.drawer')
  await page.keyboard.press('Escape')
  // The moment before the answer: acts are off, links keep it, and it is left by a key.
  await tab.open(`runs/${run?.id}?at=${before.toISOString()}`)
  await tab.sees('As it was at', '.top')
  await tab.sees('at a gate', 'h1')
  expect(await page.$eval('.acts button', (button) => button.hasAttribute('disabled'))).toBe(true)
  expect(await page.$eval('.side nav a', (link) => link.getAttribute('href'))).toContain(`at=${before.toISOString()}`)
  await page.keyboard.press('[')
  await page.waitForFunction(`!location.hash.includes(${JSON.stringify(before.toISOString())})`)
  await tab.sees('at a gate', 'h1')
  await page.focus('[role=slider]')
  await page.keyboard.press('End')
  await tab.sees('succeeded', 'h1')
  expect(tab.complaints).toEqual([])
})

it('a run is cancelled after one question, and no letter is taken while somebody types', async () => {
  const run = await shop.stage.flow.request('shop/endless')
  await using tab = await shop.tab(`runs/${run.id}`, { theme: 'dark' })
  await tab.press('Cancel run')
  await tab.press('Cancel run of endless')
  await tab.sees('cancelled', 'h1')
  // One right after the other, however long the page takes for the first.
  await Promise.all([tab.page.keyboard.press('g'), tab.page.keyboard.press('r')])
  await tab.sees('open, ', 'h1')
  await tab.page.type('.find-runs input', 'tag')
  expect(await tab.page.evaluate('location.hash')).toBe('#/runs')
  expect(await tab.page.$eval('.find-runs input', (field) => field.getAttribute('value') ?? 'tag')).toBe('tag')
  expect(tab.complaints).toEqual([])
})

it('axe finds nothing on any page, in the light and in the dark, on a wide screen and on a phone', async () => {
  const gated = await shop.stage.flow.request('shop/checked')
  await until('it waits', async () => (await shop.stage.flow.gates.waiting()).length === 1)
  const [failed] = await shop.stage.flow.runs({ status: 'failed' })
  const [gate] = await shop.stage.flow.gates.waiting()
  const found: string[] = []
  for (const [theme, width] of [
    ['dark', 1440],
    ['light', 390],
  ] as const) {
    await using tab = await shop.tab('', { theme, size: { width, height: 844 } })
    const pages = [
      ['', 'gate waits for you'],
      ['runs', 'broken'],
      [`runs/${failed?.id}`, '413 Payload Too Large'],
      [`runs/${gated.id}?asset=checked`, 'Open its gate'],
      ['inbox', 'Publish <b>3</b> products?'],
      [`inbox/${gate?.id}`, 'Comment'],
      ['nowhere', 'There is nothing at this address.'],
    ] as const
    for (const [hash, text] of pages) {
      await tab.open(hash)
      await tab.sees(text)
      found.push(...(await tab.violations()).map((one) => `${hash} ${theme} ${width} ${one}`))
      expect(await tab.page.evaluate('document.documentElement.scrollWidth'), hash).toBe(width)
    }
    expect(tab.complaints).toEqual([])
  }
  expect(found).toEqual([])
})

it('who has no key is asked for one, what it may not do has no button, and a server that is gone is said', async () => {
  const key = newApiKey()
  const guarded = await shop.serve({ apiKeys: [{ id: 'ana', hash: key.hash, assets: ['*/*'], role: 'viewer' }] })
  await using tab = await shop.tab('runs', { url: guarded.url })
  await tab.sees('Who looks needs an API key.')
  expect(await tab.violations()).toEqual([])
  await tab.page.type('#key', 'wrong')
  await tab.press('Open')
  await tab.sees('This key is not accepted.')
  await tab.page.$eval('#key', (field) => Object.assign(field, { value: '' }))
  await tab.page.type('#key', key.key)
  await tab.press('Open')
  await tab.sees('as ana, viewer')
  await tab.sees('broken', '.list')
  expect(await tab.page.evaluate('document.body.innerText')).not.toContain('Start a run')
  expect(await tab.page.evaluate('document.cookie')).toBe('')
  // The server goes away: what was there stays, and the page says since when it is old.
  await guarded.close()
  await tab.sees('No connection', '.top')
  await tab.press('Failed')
  await tab.sees('No answer', '.notice')
})

it('a gate that is open in the inbox stays so when a more urgent one comes before it', async () => {
  const { flow } = shop.stage
  gateOf.stock.resolve()
  for (const { id } of await flow.gates.waiting()) await flow.gates.cancel(id)
  await until('none waits', async () => (await flow.gates.waiting()).length === 0)
  const read = await flow.request('shop/checked')
  await until('it waits', async () => (await flow.gates.waiting()).length === 1)
  await using tab = await shop.tab('inbox')
  await tab.sees('Publish <b>3</b> products?', '.gate-title')
  await flow.request('shop/urgent')
  await tab.sees('Sell all of it?', '.inbox-row:first-child')
  expect(await tab.page.$eval('.gate-title', (title) => title.textContent)).toBe('Publish <b>3</b> products?')
  await tab.page.keyboard.press('a')
  expect(await flow.run(read.id).result({ signal: within(30_000) })).toMatchObject({ approved: true })
  await until('the other one is left', async () => {
    const waiting = await flow.gates.waiting()
    return waiting.length === 1 && waiting[0]?.asset === 'urgent'
  })
  for (const { id } of await flow.gates.waiting()) await flow.gates.cancel(id)
})

it('the console is one page that is looked at anew, and files that stay', async () => {
  const page = await request(`${shop.http.url}/`)
  expect(page.headers.get('cache-control')).toBe('no-cache')
  const policy = page.headers.get('content-security-policy') ?? ''
  expect(policy).toContain("default-src 'self'")
  expect(policy).toContain("frame-ancestors 'none'")
  expect(policy).not.toContain('unsafe')
  expect(page.text).not.toMatch(/https?:|<style|style=|<script>/)
  const [, script = ''] = /src="(assets\/main-[^"]+)"/.exec(page.text) ?? []
  const file = await request(`${shop.http.url}/${script}`)
  expect(file.headers.get('cache-control')).toContain('immutable')
  expect(file.headers.get('content-type')).toContain('text/javascript')
  for (const path of ['/assets/../package.json', '/assets/none.js', '/assets/%2e%2e/manifest.json'])
    expect((await request(`${shop.http.url}${path}`)).status, path).toBe(404)
  expect((await request(`${shop.http.url}/`, { method: 'POST' })).status).toBe(405)
})

it('a console that others reach is only to look at, unless there are keys', async () => {
  const shown = await shop.serve({ host: '0.0.0.0' })
  const local = `http://127.0.0.1:${shown.port}/api/v1`
  expect((await request(`${local}/me`)).body.may).toEqual(['read'])
  expect((await post(`${local}/runs`, { target: 'shop/stock' })).status).toBe(403)
  expect((await request(`${shop.http.url}/api/v1/me`)).body.may).toContain('administer')
  await expect(shop.serve({ api: false })).rejects.toThrow('console needs api')
})
