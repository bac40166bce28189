import { expect, it } from 'vitest'
import { type AddressOptions, addressReader, limiterName, normalAddress } from '../../src/http/shared/address.ts'

function sourceOf(options: AddressOptions, headers: Record<string, string>, remoteAddress = '203.0.113.9'): string {
  return addressReader(options)(new Request('http://h/', { headers }), { incoming: { socket: { remoteAddress } } })
}

it('proxy headers are ignored unless somebody says that they are to be trusted', () => {
  const headers = { 'x-forwarded-for': '1.1.1.1', forwarded: 'for=2.2.2.2', 'x-real-ip': '3.3.3.3' }
  expect(sourceOf({}, headers)).toBe('203.0.113.9')
  expect(sourceOf({ trustProxy: 0 }, headers)).toBe('203.0.113.9')
})

it('by number: what the nearest proxies added, and never what the sender wrote before it', () => {
  const headers = { 'x-forwarded-for': '6.6.6.6, 198.51.100.7, 10.0.0.2' }
  expect(sourceOf({ trustProxy: 1 }, headers)).toBe('10.0.0.2')
  expect(sourceOf({ trustProxy: 2 }, headers)).toBe('198.51.100.7')
  expect(sourceOf({ trustProxy: 3 }, { 'x-forwarded-for': '198.51.100.7' })).toBe('198.51.100.7')
  expect(sourceOf({ trustProxy: 1 }, {})).toBe('203.0.113.9')
})

it('by address: outwards as long as the one that says so is trusted', () => {
  const trustProxy = ['loopback', '10.0.0.0/8']
  const headers = { 'x-forwarded-for': '6.6.6.6, 198.51.100.7, 10.0.0.2' }
  expect(sourceOf({ trustProxy }, headers, '127.0.0.1')).toBe('198.51.100.7')
  expect(sourceOf({ trustProxy }, headers, '::ffff:127.0.0.1')).toBe('198.51.100.7')
  expect(sourceOf({ trustProxy }, headers, '203.0.113.9')).toBe('203.0.113.9')
  expect(sourceOf({ trustProxy }, { 'x-forwarded-for': '10.1.1.1, 10.0.0.2' }, '10.9.9.9')).toBe('10.1.1.1')
})

it('what is no address ends the way outwards', () => {
  expect(sourceOf({ trustProxy: 2 }, { 'x-forwarded-for': '1.1.1.1, <script>, 10.0.0.2' })).toBe('10.0.0.2')
  expect(sourceOf({ trustProxy: 1 }, { 'x-forwarded-for': 'unknown' })).toBe('203.0.113.9')
  expect(sourceOf({ trustProxy: 1 }, { 'x-forwarded-for': ',' })).toBe('203.0.113.9')
})

it('only the header that the proxies write is read', () => {
  const headers = { 'x-forwarded-for': '6.6.6.6', forwarded: 'for=198.51.100.7;proto=https' }
  expect(sourceOf({ trustProxy: 1, proxyHeader: 'forwarded' }, headers)).toBe('198.51.100.7')
  expect(sourceOf({ trustProxy: 1 }, headers)).toBe('6.6.6.6')
})

it.each([
  ['for=192.0.2.43, For="[2001:db8:cafe::17]:4711"', 1, '2001:db8:cafe::17'],
  ['for=192.0.2.43, For="[2001:db8:cafe::17]:4711"', 2, '192.0.2.43'],
  ['for="192.0.2.43:47011";by=203.0.113.43', 1, '192.0.2.43'],
  ['for="6.6.6.6, for=7.7.7.7";x="a,b", for=198.51.100.7', 1, '198.51.100.7'],
  ['for=198.51.100.7, for=_hidden', 2, '203.0.113.9'],
  ['for=198.51.100.7, proto=http', 2, '203.0.113.9'],
  ['for="6.6.6.6, for=198.51.100.7', 1, '198.51.100.7'],
  ['for="6.6.6.6\\", for=198.51.100.7', 1, '198.51.100.7'],
  ['for=", for=6.6.6.6, for=198.51.100.7', 1, '198.51.100.7'],
  ['"for=6.6.6.6, for="198.51.100.7:80";x="a,\\"b", for=10.0.0.2', 2, '198.51.100.7'],
  ['for=6.6.6.6;x="\\, for=198.51.100.7', 1, '198.51.100.7'],
])('Forwarded as RFC 7239 has it: %s from %i proxies', (forwarded, trustProxy, expected) => {
  expect(sourceOf({ trustProxy, proxyHeader: 'forwarded' }, { forwarded })).toBe(expected)
})

it('an address has one form', () => {
  expect(normalAddress('::ffff:192.0.2.1')).toBe('192.0.2.1')
  expect(normalAddress('[2001:DB8::1]:443')).toBe('2001:db8::1')
  expect(normalAddress('fe80::1%eth0')).toBe('fe80::1')
  expect(normalAddress('192.0.2.1:80')).toBe('192.0.2.1')
  expect(normalAddress('192.0.2')).toBeUndefined()
  expect(normalAddress('')).toBeUndefined()
})

it('a whole /64 of IPv6 has one allowance', () => {
  expect(limiterName('2001:db8:0:1::5')).toBe(limiterName('2001:db8:0:1:ffff::9'))
  expect(limiterName('2001:db8:0:1::5')).not.toBe(limiterName('2001:db8:0:2::5'))
  expect(limiterName('2001:0db8:0000:0001:1:2:3:4')).toBe(limiterName('2001:db8:0:1::'))
  expect(limiterName('::1')).toBe('0:0:0:0/64')
  expect(limiterName('192.0.2.1')).toBe('192.0.2.1')
})

it('options that cannot be are refused, trusting everybody among them', () => {
  // As from a file of configuration, which no type checker sees.
  for (const trustProxy of ['true', '-1', '1.5', '"loopback"', '["nonsense"]', '["10.0.0.0/33"]', '["10.0.0.0/"]'])
    expect(() => addressReader(JSON.parse(`{"trustProxy":${trustProxy}}`))).toThrow(/^trustProxy/)
  expect(() => addressReader(JSON.parse('{"proxyHeader":"x-real-ip"}'))).toThrow(/^proxyHeader/)
})

it('an address that nobody knows is called so, and Deno and an option of one’s own bring it too', () => {
  const request = new Request('http://h/')
  expect(addressReader({})(request, undefined)).toBe('unknown')
  expect(addressReader({})(request, { remoteAddr: { hostname: '192.0.2.8' } })).toBe('192.0.2.8')
  expect(addressReader({ address: (_, env) => String(env) })(request, '192.0.2.9')).toBe('192.0.2.9')
})
