/** The console in a browser, of a namespace that really runs. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Page } from 'puppeteer-core'
import { type GateServer, type ServeOptions, serveGates } from '../../src/http/index.ts'
import type { Pipeline } from '../../src/index.ts'
import { SECRETS } from '../http/kit.ts'
import { openBrowser } from '../kit/browser.ts'
import { openStage, type Stage } from '../kit/stage.ts'

export interface TabOptions {
  readonly theme?: 'light' | 'dark'
  readonly size?: { readonly width: number; readonly height: number }
  /** Of another server than the first one. */
  readonly url?: string
}

export interface ConsoleTab extends AsyncDisposable {
  readonly page: Page
  /** What the browser complained about: errors, and what the policy of the page forbids. */
  readonly complaints: readonly string[]
  /** Waits until the text is on the page, or in the part that a selector names. */
  sees(text: string, selector?: string): Promise<void>
  /** Presses the button or follows the link that has this name. */
  press(name: string): Promise<void>
  /** What axe-core finds. */
  violations(): Promise<string[]>
  /** Another page, without loading anew. */
  open(hash: string): Promise<void>
}

export interface ConsoleStage extends AsyncDisposable {
  readonly stage: Stage
  readonly http: GateServer
  /** Another server of the same namespace. Closed with the stage. */
  serve(options: ServeOptions): Promise<GateServer>
  tab(hash: string, options?: TabOptions): Promise<ConsoleTab>
}

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
/** Run in the page: the rule, and the first elements that break it. */
const RUN_AXE = `axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations.map(({ id, nodes }) =>
  id + ': ' + nodes.slice(0, 4).map(({ html }) => html.slice(0, 120)).join(' | ')))`
const PATIENCE_MS = 15_000

export async function openConsole(natsUrl: string, pipelines: Pipeline | readonly Pipeline[]): Promise<ConsoleStage> {
  const stage = await openStage(natsUrl, pipelines, { gates: { secrets: SECRETS } })
  const servers: GateServer[] = []
  const serve = async (options: ServeOptions): Promise<GateServer> => {
    const server = await serveGates(stage.flow, { port: 0, console: true, ...options })
    servers.push(server)
    return server
  }
  const http = await serve({})
  const chromium = await openBrowser()
  return {
    stage,
    http,
    serve,
    async tab(hash, { theme = 'light', size = { width: 1280, height: 800 }, url = http.url } = {}) {
      const page = await chromium.browser.newPage()
      const complaints: string[] = []
      page.on('console', (message) => complaints.push(message.text()))
      page.on('pageerror', (error) => complaints.push(String(error)))
      const isPhone = size.width < 500
      await page.setViewport({ ...size, isMobile: isPhone, hasTouch: isPhone })
      await page.emulateMediaFeatures([
        { name: 'prefers-color-scheme', value: theme },
        { name: 'prefers-reduced-motion', value: 'reduce' },
      ])
      await page.goto(`${url}/#/${hash}`)
      return tabOf(page, complaints)
    },
    async [Symbol.asyncDispose]() {
      await chromium[Symbol.asyncDispose]()
      await Promise.all(servers.map((server) => server.close()))
      await stage[Symbol.asyncDispose]()
    },
  }
}

function tabOf(page: Page, complaints: readonly string[]): ConsoleTab {
  return {
    page,
    complaints,
    async sees(text, selector = 'body') {
      const looks = `[...document.querySelectorAll(${JSON.stringify(selector)})].some((one) => one.innerText.includes(${JSON.stringify(text)}))`
      try {
        await page.waitForFunction(looks, { timeout: PATIENCE_MS })
      } catch (cause) {
        const shown = await page.evaluate('document.body.innerText')
        throw new Error(`the page does not show ${JSON.stringify(text)}, but:\n${shown}\n${complaints.join('\n')}`, {
          cause,
        })
      }
    },
    async press(name) {
      const button = await page.waitForSelector(
        `::-p-xpath(//*[(self::button or self::a) and normalize-space()="${name}" and not(@disabled)])`,
        {
          timeout: PATIENCE_MS,
          visible: true,
        },
      )
      await button?.click()
    },
    async violations() {
      if (!(await page.evaluate('"axe" in window'))) await page.evaluate(AXE)
      const found = await page.evaluate(RUN_AXE)
      return found as string[]
    },
    async open(hash) {
      await page.evaluate(`location.hash = ${JSON.stringify(`#/${hash}`)}`)
    },
    async [Symbol.asyncDispose]() {
      await page.close()
    },
  }
}
