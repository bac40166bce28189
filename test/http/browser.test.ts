import { createServer, type Server } from 'node:http'
import type { Browser, Page, SerializedAXNode } from 'puppeteer-core'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openBrowser } from '../kit/browser.ts'
import { useServer } from '../kit/fixture.ts'
import { type GateStage, openGateStage } from './kit.ts'

const server = useServer()
let gates: GateStage
let chromium: Awaited<ReturnType<typeof openBrowser>>
let browser: Browser

beforeAll(async () => {
  gates = await openGateStage(server.url)
  chromium = await openBrowser()
  browser = chromium.browser
})

afterAll(async () => {
  await chromium?.[Symbol.asyncDispose]()
  await gates?.[Symbol.asyncDispose]()
})

/** A tab of its own, with what it complains about. */
async function tab(url: string): Promise<{ page: Page; complaints: string[] } & AsyncDisposable> {
  const page = await browser.newPage()
  const complaints: string[] = []
  page.on('console', (message) => complaints.push(message.text()))
  page.on('pageerror', (error) => complaints.push(String(error)))
  page.on('dialog', (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`)
    dialog.dismiss().catch(() => {})
  })
  await page.goto(url)
  return { page, complaints, [Symbol.asyncDispose]: () => page.close() }
}

async function press(page: Page, button: string): Promise<void> {
  await Promise.all([page.waitForNavigation(), page.click(`button[value=${button}]`)])
}

it('a person approves on a phone, and reads that it was recorded', async () => {
  const gate = await gates.open({
    approval: { message: 'Publish the report?', context: { rows: 12, note: '<img src=x onerror=alert(1)>' } },
  })
  await using open = await tab(gate.url)
  const { page, complaints } = open
  await page.setViewport({ width: 360, height: 640, isMobile: true, hasTouch: true })
  expect(await page.$eval('h1', (h1) => h1.textContent)).toBe('Publish the report?')
  // Nothing is wider than the screen.
  expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360)
  await page.type('#comment', 'Looks fine')
  await page.type('#by', 'Ada')
  await press(page, 'approve')
  expect(await page.$eval('h1', (h1) => h1.textContent)).toBe('Approved: recorded')
  expect(complaints).toEqual([])
  expect(await gate.run.result()).toMatchObject({ approved: true, comment: 'Looks fine', by: 'Ada' })
})

it('the keyboard reaches everything in order, and Enter in a field decides nothing', async () => {
  const gate = await gates.open({ approval: { message: 'Publish?' } })
  await using open = await tab(gate.url)
  const { page } = open
  const focused: string[] = []
  for (let i = 0; i < 4; i++) {
    await page.keyboard.press('Tab')
    focused.push(String(await page.evaluate('document.activeElement.id || document.activeElement.value')))
  }
  expect(focused).toEqual(['comment', 'by', 'approve', 'reject'])
  await page.focus('#by')
  await page.keyboard.press('Enter')
  // Had the form been sent, its page would have come before this one.
  await page.reload()
  expect(await page.$eval('h1', (h1) => h1.textContent)).toBe('Publish?')
  expect((await gates.flow.gates.get(gate.id))?.status).toBe('waiting')
  await page.focus('button[value=reject]')
  await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')])
  expect(await gate.run.result()).toMatchObject({ approved: false })
})

it('every field has a name that is read out, and colors keep enough contrast in the light and in the dark', async () => {
  const gate = await gates.open({ approval: { message: 'Publish?', context: { a: 1 } } })
  await using open = await tab(gate.url)
  const { page } = open
  for (const scheme of ['light', 'dark']) {
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }])
    expect(await page.evaluate(CONTRAST), scheme).toEqual([])
  }
  const names = spoken(await page.accessibility.snapshot())
  expect(names).toEqual([
    'textbox Comment (optional)',
    'textbox Your name (optional, recorded with the decision)',
    'button Approve',
    'button Reject',
  ])
})

/** What a screen reader says of fields and buttons. */
function spoken(node: SerializedAXNode | null | undefined): string[] {
  if (!node) return []
  const own = ['textbox', 'button'].includes(node.role) ? [`${node.role} ${node.name}`] : []
  return [...own, ...(node.children ?? []).flatMap(spoken)]
}

/** Run in the page: texts whose contrast is below 4.5 (WCAG AA), with what they stand on. */
const CONTRAST = `(() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number)
  const luminance = ([r, g, b]) => [r, g, b].map((v) => { const c = v / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4 })
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0)
  const ground = (node) => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor); if (c[3] !== 0) return c } return [255, 255, 255] }
  const low = []
  for (const node of document.querySelectorAll('h1,h2,p,dt,dd,th,td,label,label span,button:not([disabled]),input,textarea')) {
    const [a, b] = [luminance(parse(getComputedStyle(node).color)), luminance(ground(node))]
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    if (ratio < 4.5) low.push(node.tagName + ' ' + node.textContent.slice(0, 20) + ' ' + ratio.toFixed(2))
  }
  return low
})()`

it('a page of another site can neither frame it nor answer in a person’s name', async () => {
  const gate = await gates.open({ approval: { message: 'Publish?' } })
  const evil = await otherSite(`<!doctype html><title>evil</title><iframe src="${gate.url}"></iframe>
<form id="forged" method="post" action="${gate.url}"><input name="decision" value="approve"></form>`)
  try {
    await using open = await tab(evil.url)
    const { page, complaints } = open
    expect(complaints.join('\n')).toMatch(/frame/i)
    expect(await page.frames()[1]?.content()).not.toContain('Publish?')
    await Promise.all([page.waitForNavigation(), page.evaluate('document.getElementById("forged").submit()')])
    expect(await page.content()).toContain('From another site')
    await page.goto(evil.url)
    // The browser sends it all the same, but that page cannot read the answer.
    const sent = await page.evaluate(
      `fetch(${JSON.stringify(gate.url)}, { method: 'POST', mode: 'no-cors', body: 'decision=approve' }).then(() => 'told', String)`,
    )
    expect(sent).toBe('TypeError: Failed to fetch')
    expect((await gates.flow.gates.get(gate.id))?.status).toBe('waiting')
  } finally {
    evil.server.close()
  }
})

/** On another host than the gates: localhost, and not 127.0.0.1. */
async function otherSite(html: string): Promise<{ url: string; server: Server }> {
  const web = createServer((_, response) => response.writeHead(200, { 'Content-Type': 'text/html' }).end(html))
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve))
  const address = web.address()
  return { url: `http://localhost:${typeof address === 'object' ? address?.port : ''}`, server: web }
}

it('JSON that is wrong is said so beside the field, and what was typed is still there', async () => {
  const gate = await gates.open()
  await using open = await tab(gate.url)
  const { page } = open
  await page.type('#payload', '{"a": 1')
  await press(page, 'send')
  expect(await page.$eval('[role=alert]', (alert) => alert.textContent)).toContain('The payload is not JSON')
  expect(await page.$eval('#payload', (field) => field.getAttribute('aria-invalid'))).toBe('true')
  await page.focus('#payload')
  await page.keyboard.press('End')
  await page.keyboard.type('}')
  await press(page, 'send')
  expect(await gate.run.result()).toEqual({ a: 1 })
})
