import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Browser } from 'puppeteer-core'
import { scratchFolder } from './scratch.ts'

/**
 * Headless Chromium out of a package, with the libraries and the font that it wants, so that a
 * machine needs nothing installed. Its own security stays on (that package's usual arguments turn
 * it off), because that is what the tests are about; only the sandbox is off, which root cannot
 * have.
 *
 * The package is for Linux on x64. Elsewhere, FLOWSTONE_TEST_CHROMIUM names a Chromium or Chrome
 * that is installed.
 */
export async function openBrowser(): Promise<{ browser: Browser } & AsyncDisposable> {
  const scratch = scratchFolder()
  const inScratch = (...names: string[]): string => join(scratch.path, ...names)
  const installed = process.env.FLOWSTONE_TEST_CHROMIUM
  // The package unpacks into the system's temporary folder, and its libraries only where it takes
  // the platform for that of its name.
  const changes = { TMPDIR: scratch.path, AWS_LAMBDA_JS_RUNTIME: 'nodejs24.x' }
  const before = { ...process.env }
  const inPackage = {
    TMPDIR: scratch.path,
    HOME: scratch.path,
    LD_LIBRARY_PATH: inScratch('al2023', 'lib'),
    FONTCONFIG_FILE: inScratch('fonts.conf'),
  }
  try {
    Object.assign(process.env, changes)
    const { default: chromium } = await import('@sparticuz/chromium')
    const { default: puppeteer } = await import('puppeteer-core')
    const executablePath = installed ?? (await chromium.executablePath())
    writeFileSync(
      inScratch('fonts.conf'),
      `<fontconfig><dir>${inScratch('fonts', 'fonts')}</dir><cachedir>${inScratch('font-cache')}</cachedir></fontconfig>`,
    )
    const browser = await puppeteer.launch({
      executablePath,
      headless: installed ? true : 'shell',
      args: ['--no-sandbox', '--no-zygote', '--disable-gpu', '--font-render-hinting=none'],
      env: installed ? before : { ...before, ...inPackage },
    })
    return {
      browser,
      async [Symbol.asyncDispose]() {
        await browser.close()
        scratch[Symbol.dispose]()
      },
    }
  } catch (error) {
    scratch[Symbol.dispose]()
    throw error
  } finally {
    for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name]
    Object.assign(process.env, before)
  }
}
