import { createHash } from 'node:crypto'
import { expect, it } from 'vitest'
import { waitOf } from '../../src/http/runs/prefer.ts'
import { Waits } from '../../src/http/runs/waits.ts'
import { type ApiKey, ApiKeys, newApiKey } from '../../src/http/shared/api-keys.ts'

const NOW = Date.parse('2026-06-01T00:00:00Z')

function keyed(more: Partial<ApiKey> = {}): { key: string; entry: ApiKey } {
  const { key, hash } = newApiKey()
  return { key, entry: { id: 'shop', hash, assets: ['orders/*'], ...more } }
}

it('a new key has 32 random bytes, and its hash is the one that sha256sum shows', () => {
  const { key, hash } = newApiKey()
  expect(Buffer.from(key.replace('fsk_', ''), 'base64url')).toHaveLength(32)
  expect(hash).toBe(createHash('sha256').update(key).digest('hex'))
  expect(newApiKey().key).not.toBe(key)
})

it('each of many keys is found, and nothing else is', () => {
  const many = Array.from({ length: 200 }, (_, i) => keyed({ id: `client-${i}` }))
  const keys = new ApiKeys(many.map(({ entry }) => entry))
  for (const [i, { key }] of many.entries()) expect(keys.find(`Bearer ${key}`, NOW)?.id).toBe(`client-${i}`)
  const [first] = many
  const key = first?.key ?? ''
  expect(keys.find(`bearer  ${key} `, NOW)?.id).toBe('client-0')
  for (const header of [
    null,
    '',
    key,
    'Bearer',
    'Bearer ',
    `Basic ${key}`,
    `Bearer ${key}x`,
    `Bearer ${key.slice(0, -1)}`,
    `Bearer ${key}, Bearer ${key}`,
    `Bearer ${key} ${key}`,
    `Bearer ${first?.entry.hash}`,
    `Bearer ${newApiKey().key}`,
    `Bearer ${'x'.repeat(100_000)}`,
  ])
    expect(keys.find(header, NOW), String(header).slice(0, 60)).toBeUndefined()
})

it('a key that somebody thought of himself is refused, though its hash is in the configuration', () => {
  const hash = createHash('sha256').update('a password of 22 chars').digest('hex')
  expect(new ApiKeys([keyed({ hash }).entry]).find('Bearer a password of 22 chars', NOW)).toBeUndefined()
  const short = 'x'.repeat(42)
  const ofShort = keyed({ hash: createHash('sha256').update(short).digest('hex') })
  expect(new ApiKeys([ofShort.entry]).find(`Bearer ${short}`, NOW)).toBeUndefined()
})

it('a key covers the assets that it names, and is unknown once it has expired', () => {
  const { key, entry } = keyed({ assets: ['orders/*', 'sales/report'], may: ['read'], expires: '2026-06-02' })
  const keys = new ApiKeys([entry])
  const found = keys.find(`Bearer ${key}`, NOW)
  expect([found?.may('read'), found?.may('start')]).toEqual([true, false])
  const covered = ['orders/a', 'orders/', 'sales/report', 'sales/reports', 'sale/report', 'orders2/a', '*/a']
  expect(covered.filter((name) => found?.covers(name.split('/')[0] ?? '', name.split('/')[1] ?? ''))).toEqual([
    'orders/a',
    'orders/',
    'sales/report',
  ])
  expect(keys.find(`Bearer ${key}`, Date.parse('2026-06-02'))).toBeUndefined()
  const all = keyed({ assets: ['*/*'], expires: new Date(NOW + 1) })
  expect(new ApiKeys([all.entry]).find(`Bearer ${all.key}`, NOW)?.covers('any', 'thing')).toBe(true)
})

it('keys that cannot be are refused, and what may be a key is not shown', () => {
  const make = (more: object) => () => new ApiKeys([{ ...keyed().entry, ...more }])
  expect(() => new ApiKeys([])).toThrow('apiKeys must be a list of at least one key')
  expect(make({ id: 'a.b' })).toThrow('apiKeys[0]: id must be')
  expect(make({ hash: 'fsk_secret' })).toThrow(/^apiKeys\[0\] \(shop\): hash must be the SHA-256 .* not the key$/)
  expect(make({ assets: [] })).toThrow('assets must be a list')
  expect(make({ assets: ['*'] })).toThrow('assets must be a list')
  expect(make({ assets: ['orders/in*'] })).toThrow('assets must be a list')
  expect(make({ may: ['write'] })).toThrow('may must be a list of start, read')
  expect(make({ expires: 'soon' })).toThrow('expires must be a date')
  expect(make({ expires: 1 })).toThrow('expires must be a date')
  expect(make({ asets: [] })).toThrow('no option asets; did you mean assets?')
  const { entry } = keyed()
  expect(() => new ApiKeys([entry, { ...entry, id: 'other' }])).toThrow('two have the same hash')
})

it.each([
  ['wait=30', 30],
  ['respond-async, wait=10', 10],
  ['WAIT = 5; note=x', 5],
  ['wait="7"', 7],
  ['wait=100', 60],
  ['wait=999999999', 60],
  ['wait=2, wait=50', 2],
  ['wait=0', 0],
  ['wait=-1', 0],
  ['wait=soon', 0],
  ['wait', 0],
  ['waiting=4', 0],
  ['', 0],
])('Prefer: %s waits %i s', (prefer, seconds) => {
  expect(waitOf(new Headers({ Prefer: prefer }))).toBe(seconds)
})

it('one client takes 100 places to wait, all together 1,000, and what is given back is free', () => {
  const waits = new Waits()
  const of = (key: string) => Array.from({ length: 101 }, () => waits.take(key))
  const first = of('a')
  expect(first.filter(Boolean)).toHaveLength(100)
  expect(first.at(-1)).toBeUndefined()
  first[0]?.[Symbol.dispose]()
  expect(waits.take('a')).toBeDefined()
  for (let i = 1; i < 10; i++) of(`client ${i}`)
  expect(waits.take('another')).toBeUndefined()
})
