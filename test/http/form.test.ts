import { expect, it } from 'vitest'
import { checkBrowser, checkNonce, newNonce } from '../../src/http/gates/form.ts'

const NOW = Date.parse('2026-11-25T12:00:00Z')
const HOUR = 3_600_000

it('a nonce holds for its token, for a day', () => {
  const nonce = newNonce('token', NOW)
  checkNonce('token', nonce, NOW)
  checkNonce('token', nonce, NOW + 24 * HOUR)
  checkNonce('token', nonce, NOW - 30_000)
  expect(() => checkNonce('token', nonce, NOW + 24 * HOUR + 1000)).toThrow('Form not valid')
  expect(() => checkNonce('token', nonce, NOW - HOUR)).toThrow('Form not valid')
  expect(() => checkNonce('other token', nonce, NOW)).toThrow('Form not valid')
})

it('no changed nonce holds, and two are never the same', () => {
  const nonce = newNonce('token', NOW)
  for (let i = 0; i < nonce.length; i++) {
    const changed = `${nonce.slice(0, i)}${nonce[i] === 'x' ? 'y' : 'x'}${nonce.slice(i + 1)}`
    expect(() => checkNonce('token', changed, NOW), changed).toThrow('Form not valid')
  }
  for (const broken of ['', '.', '..', nonce.slice(0, -1), `${nonce}x`, 'NaN.x.y'])
    expect(() => checkNonce('token', broken, NOW), broken).toThrow('Form not valid')
  expect(newNonce('token', NOW)).not.toBe(nonce)
})

const OWN = 'https://flows.example.com'

function browser(headers: Record<string, string>, origin?: string): boolean {
  return checkBrowser(new Request(`${OWN}/hooks/flowstone/signal/x`, { method: 'POST', headers }), origin).browser
}

it('a program is no browser, and our own page is one', () => {
  expect(browser({})).toBe(false)
  expect(browser({ 'sec-fetch-site': 'same-origin', origin: 'null' })).toBe(true)
  expect(browser({ 'sec-fetch-site': 'same-origin', origin: OWN })).toBe(true)
  // Browsers of before 2023 do not tell the site.
  expect(browser({ origin: 'null' })).toBe(true)
})

it.each([
  { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' },
  { 'sec-fetch-site': 'same-site', origin: 'https://other.example.com' },
  { 'sec-fetch-site': 'cross-site', origin: 'null' },
  { 'sec-fetch-site': 'none' },
  { 'sec-fetch-site': 'same-origin', origin: 'https://evil.example' },
  { origin: 'https://evil.example' },
  { origin: 'https://flows.example.com.evil.example' },
  { origin: 'nonsense' },
])('a page of another site is refused: %o', (headers) => {
  expect(() => browser(headers)).toThrow('From another site')
  expect(() => browser(headers, OWN)).toThrow('From another site')
})

it('behind a proxy that changes the host, the configured address is what counts', () => {
  const behind = (origin: string) =>
    checkBrowser(
      new Request('http://10.0.0.7:8080/', { method: 'POST', headers: { origin } }),
      'https://flows.example.com/base',
    )
  expect(behind(OWN).browser).toBe(true)
  expect(() => behind('http://10.0.0.7:8080')).toThrow('From another site')
})
