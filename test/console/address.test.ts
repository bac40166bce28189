import { expect, it } from 'vitest'
import { formatAddress, parseAddress } from '../../src/console/state/address.ts'

it('an address holds the page, its ids, filters and the moment, and comes back as it was', () => {
  const address = {
    path: ['runs', '0-a/b', 'pages'],
    query: { show: 'failed' },
    at: new Date('2026-11-28T14:00:20.120Z'),
  }
  const text = formatAddress(address)
  expect(text).toBe('#/runs/0-a%2Fb/pages?show=failed&at=2026-11-28T14:00:20.120Z')
  expect(parseAddress(text)).toEqual(address)
})

it('an address without anything is the home page at this moment', () => {
  for (const hash of ['', '#', '#/']) expect(parseAddress(hash)).toEqual({ path: [], query: {}, at: undefined })
  expect(formatAddress({ path: [], query: { tag: '' }, at: undefined })).toBe('#/')
})

it('what is no time and what is not encoded are passed over', () => {
  expect(parseAddress('#/runs?at=soon').at).toBeUndefined()
  expect(parseAddress('#/runs/%').path).toEqual(['runs', '%'])
})
