import { describe, expect, it } from 'vitest'
import { forOutsiders } from '../../streams/outside.ts'

const shown = (message: string): string => forOutsiders({ code: 'c', message }).message

describe('an error for outsiders', () => {
  it('has no stack at any depth', () => {
    const leaf = { code: 'c', message: 'm', stack: 'at /home/me/x.ts:1' }
    const error = { ...leaf, cause: { ...leaf, errors: [leaf, { ...leaf, cause: leaf }] }, errors: [leaf] }
    const bare = { code: 'c', message: 'm' }
    expect(forOutsiders(error)).toEqual({
      ...bare,
      cause: { ...bare, errors: [bare, { ...bare, cause: bare }] },
      errors: [bare],
    })
  })

  it.each([
    [
      "ENOENT: no such file or directory, open '/home/app/data/x.csv'",
      "ENOENT: no such file or directory, open '…/x.csv'",
    ],
    [
      "Cannot find module '/a b/c d/x.js' imported from /opt/x/y.mjs",
      "Cannot find module '…/x.js' imported from …/y.mjs",
    ],
    ['file:///C:/Users/me/x.ts:12:3 is bad', '…/x.ts:12:3 is bad'],
    [String.raw`C:\Users\me\x.ts and \\server\share\y`, '…/x.ts and …/y'],
    ['Error: x\n    at f (/a/b.ts:1:2)\n    at async g\nmore', 'Error: x\nmore'],
    ['file=/var/lib/x, (/tmp/a/b) path:/home/x/y', 'file=…/x, (…/b) path:…/y'],
  ])('has no paths in its message: %s', (message, expected) => {
    expect(shown(message)).toBe(expected)
  })

  it.each(['no paint', 'GET https://host.io:80/a/b/c?d=/e failed', '3/4 of a/b, ./x/y and ../q/r', "only /etc, '/'"])(
    'keeps what is no path: %s',
    (message) => {
      expect(shown(message)).toBe(message)
    },
  )

  it('takes no time, whatever the message is', () => {
    const before = performance.now()
    for (const piece of ["'/", '/a', `"/'/`, '/ ', '\n    at ', ' \n ', '\n ']) shown(piece.repeat(20_000))
    expect(performance.now() - before).toBeLessThan(2000)
  })
})
