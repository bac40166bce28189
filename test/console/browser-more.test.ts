import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Asset, asset, pipeline, schedule } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { until } from '../kit/until.ts'
import { type ConsoleStage, openConsole } from './kit.ts'

const server = useServer()
let shop: ConsoleStage

const COLUMNS = 20
const ROWS = 50

const held = asset('held', {
  slots: { bucket: 'press', max: 1 },
  execute: async (ctx) => {
    await new Promise<void>((resolve) => ctx.signal.addEventListener('abort', () => resolve()))
  },
})
const report = asset('report', { execute: () => ({ numbers: [1, 2, 3] }) })
const printed = asset('printed', { dependsOn: [report], execute: () => 'paper' })
const nightly = schedule('nightly', { cron: '0 2 * * *', timeZone: 'UTC', run: report })

/** A thousand assets: each is made from one or two of the column before. */
function wide(): Asset[] {
  const all: Asset[] = []
  for (let i = 0; i < COLUMNS * ROWS; i++) {
    const [left, above] = [all[i - ROWS], all[i - ROWS + 1]]
    const dependsOn = [left, i % 5 === 0 ? above : undefined].flatMap((one) => one ?? [])
    all.push(asset(`model_${i}`, { dependsOn, execute: () => i }))
  }
  return all
}

beforeAll(async () => {
  shop = await openConsole(server.url, [
    pipeline('shop', [held, report, printed], { schedules: [nightly] }),
    pipeline('wide', wide()),
  ])
  const { flow } = shop.stage
  await flow.request('shop/held')
  await (await flow.request('shop/printed')).result()
  await until('the slot is held', async () => (await flow.limiter.status('press')).slots?.count === 1)
})

afterAll(async () => {
  for (const { id } of (await shop?.stage.flow.runs({ open: true })) ?? []) await shop.stage.flow.run(id).cancel()
  await shop?.[Symbol.asyncDispose]()
})

it('a thousand assets are laid out in a worker, drawn in part, and opened one by one', async () => {
  await using tab = await shop.tab('assets')
  const { page } = tab
  await tab.sees('of 1,003 assets are fresh', 'h1')
  await page.waitForSelector('.node')
  const drawn = await page.$$eval('.node', (nodes) => nodes.length)
  expect(drawn).toBeGreaterThan(3)
  expect(drawn).toBeLessThan(300)
  expect(page.workers()).toHaveLength(1)
  expect(await tab.violations()).toEqual([])
  await page.keyboard.press('t')
  expect(await tab.violations(), 'in the other theme').toEqual([])
  // By the keyboard from node to node, and into one.
  await page.evaluate(`document.querySelector('[data-node="shop/report"]').focus()`)
  await page.keyboard.press('ArrowRight')
  await page.waitForFunction('document.activeElement?.dataset.node === "shop/printed"')
  await page.keyboard.press('Enter')
  await tab.sees('paper', '.asset-panel')
  await tab.sees('report', '.asset-panel .facts')
  expect(await tab.violations()).toEqual([])
  await page.keyboard.press('Escape')
  await page.waitForFunction('!document.querySelector(".asset-panel")')
  await page.click('.graph-zoom button:nth-child(2)')
  await page.waitForSelector('.dot')
  await tab.sees('wide 1,000 assets', '.graph')
  expect(tab.complaints).toEqual([])
})

it('limits, schedules, workers and the log open with an answer, in the light and in the dark', async () => {
  await using tab = await shop.tab('limits')
  const { page } = tab
  for (const [hash, answer] of [
    ['limits', 'press is full. Nobody waits.'],
    ['schedules', 'Next is nightly at'],
    ['workers', '1 worker, 1 engine.'],
    ['audit', 'in the last day, by'],
    ['log', 'in the minute before now.'],
  ] as const) {
    await tab.open(hash)
    await tab.sees(answer, 'h1')
    await page.waitForSelector('main [data-nav], main .worker-row')
    expect(await tab.violations(), hash).toEqual([])
    await page.keyboard.press('t')
    expect(await tab.violations(), `${hash}, other theme`).toEqual([])
  }
  await page.click('.fact-row[data-nav]')
  await tab.sees('Go to this moment', '.drawer')
  await tab.press('Go to this moment')
  await tab.sees('As it was at', '.top')
  await tab.open('limits?at=2026-01-01T00:00:00.000Z')
  await tab.sees('Which limits were full is not kept.', 'h1')
  expect(tab.complaints).toEqual([])
})
