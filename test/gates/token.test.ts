import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { type GatesOptions, gateSettings } from '../../src/gates/settings.ts'
import { parseSecrets, TokenKeys } from '../../src/gates/token.ts'
import { SignalRejectedError } from '../../streams/errors.ts'

const GATE = '0-mww5bzqu-9c838c93241472f8.published.a1n1'
const secret = 'a'.repeat(32)
const keys = new TokenKeys([{ id: 'k1', secret }])

function reasonOf(token: string, from = keys): string {
  try {
    from.verify(token)
  } catch (error) {
    if (error instanceof SignalRejectedError) return error.reason
    throw error
  }
  return 'accepted'
}

describe('a token', () => {
  it('a token names the gate it was made for, the same each time', () => {
    const token = keys.sign(GATE)
    expect(keys.sign(GATE)).toBe(token)
    expect(keys.verify(token)).toBe(GATE)
    expect(token).toBe(
      'v1.k1.MC1td3c1YnpxdS05YzgzOGM5MzI0MTQ3MmY4LnB1Ymxpc2hlZC5hMW4x.UZsDSgUWQcAIyq3qzyJ0MxdL7O94Acmp12WgL-iQJBo',
    )
  })

  it('with any one character changed is no token', () => {
    const token = keys.sign(GATE)
    for (let i = 0; i < token.length; i++) {
      for (const other of ['A', 'B', 'Q', 'g', 'w', '0', '_', '-', '.', ' ', '=', '\0', 'é']) {
        if (token[i] === other) continue
        const forged = token.slice(0, i) + other + token.slice(i + 1)
        expect(reasonOf(forged), forged).toMatch(/malformed_token|invalid_signature/)
      }
    }
  })

  it('with any bit of it flipped is no token', () => {
    const bytes = Buffer.from(keys.sign(GATE), 'latin1')
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const forged = Buffer.from(bytes)
      forged[bit >> 3] = (forged[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(reasonOf(forged.toString('latin1'))).toMatch(/malformed_token|invalid_signature/)
    }
  })

  it('cut off anywhere, or with something added, is no token', () => {
    const token = keys.sign(GATE)
    for (let n = 0; n < token.length; n++) expect(reasonOf(token.slice(0, n))).toMatch(/malformed|invalid/)
    for (const more of ['A', '=', '.', '.x', ' ', '\n', '%00']) expect(reasonOf(token + more)).toBe('malformed_token')
    expect(reasonOf('x'.repeat(10_000_000))).toBe('malformed_token')
  })

  it('a token of another gate, another secret or another key id opens nothing', () => {
    const [version, id, , signature] = keys.sign(GATE).split('.')
    const other = keys.sign(`${GATE}0`).split('.')[2]
    expect(reasonOf([version, id, other, signature].join('.'))).toBe('invalid_signature')
    const foreign = new TokenKeys([{ id: 'k1', secret: 'b'.repeat(32) }])
    expect(reasonOf(foreign.sign(GATE))).toBe('invalid_signature')
    const renamed = new TokenKeys([{ id: 'k2', secret }])
    expect(reasonOf(renamed.sign(GATE))).toBe('invalid_signature')
    const both = new TokenKeys([
      { id: 'k1', secret },
      { id: 'k2', secret },
    ])
    expect(reasonOf(keys.sign(GATE).replace('.k1.', '.k2.'), both)).toBe('invalid_signature')
  })

  it('made of noise is no token', () => {
    for (let i = 0; i < 2000; i++) {
      const noise = randomBytes(1 + (i % 120))
      for (const text of [
        noise.toString('latin1'),
        noise.toString('base64url'),
        `v1.k1.${noise.toString('base64url')}.x`,
      ])
        expect(reasonOf(text)).toMatch(/malformed_token|invalid_signature/)
    }
    for (const value of [undefined, null, 7, {}, []])
      expect(reasonOf(value as unknown as string)).toBe('malformed_token')
  })

  it('signed by an older secret is good while that is kept, and the first secret signs', () => {
    const old = keys.sign(GATE)
    const rotated = new TokenKeys([
      { id: 'k2', secret: 'c'.repeat(32) },
      { id: 'k1', secret },
    ])
    expect(rotated.verify(old)).toBe(GATE)
    expect(rotated.sign(GATE)).toMatch(/^v1\.k2\./)
    expect(rotated.sign(GATE, 'k1')).toBe(old)
    const dropped = new TokenKeys([{ id: 'k2', secret: 'c'.repeat(32) }])
    expect(reasonOf(old, dropped)).toBe('invalid_signature')
    // Another process may have that secret; one that has none at all is set up wrongly.
    expect(() => dropped.sign(GATE, 'k1')).toThrow(expect.objectContaining({ code: 'unknown_gate_secret' }))
    expect(() => new TokenKeys([]).sign(GATE)).toThrow(expect.objectContaining({ code: 'no_gate_secret' }))
  })
})

describe('secrets', () => {
  it.each([
    ['k1:not a list' as unknown as [], 'gates.secrets must be a list'],
    [[undefined] as unknown as [], 'gates.secrets[0] must be { id, secret }'],
    [[{ id: 'k', secret: 'short' }], 'gates.secrets[0].secret must be at least 32 bytes'],
    [[{ id: 'k', secret: new Uint8Array(31) }], 'gates.secrets[0].secret must be at least 32 bytes'],
    [[{ id: 'a.b', secret }], 'gates.secrets[0].id must be 1 to 32 characters'],
    [
      [
        { id: 'k', secret },
        { id: 'k', secret },
      ],
      'gates.secrets[1]: there are two secrets with id k',
    ],
  ])('are refused when they are no good: %#', (secrets, message) => {
    expect(() => new TokenKeys(secrets)).toThrow(message)
  })

  it('secrets have no default: without one nothing is signed, and no token is good (defect 8 of the original)', () => {
    const none = new TokenKeys([])
    expect(() => none.sign(GATE)).toThrow('FLOWSTONE_GATE_SECRETS')
    expect(reasonOf(keys.sign(GATE), none)).toBe('invalid_signature')
  })

  it('stand beside an address that is one, and nothing else', () => {
    expect(gateSettings({ baseUrl: ' HTTPS://Flows.example.com/a b/ ' }, {}).baseUrl).toBe(
      'https://flows.example.com/a%20b',
    )
    for (const [options, message] of [
      [{ secret: 'x' }, 'gates: there is no option secret; did you mean secrets?'],
      [null, 'gates must be an object'],
      [{ baseUrl: new URL('https://flows.example.com') }, 'gates.baseUrl must be an address'],
      [{ baseUrl: 'flows.example.com' }, 'gates.baseUrl must be an address'],
    ] as const)
      expect(() => gateSettings(options as unknown as GatesOptions, {})).toThrow(message)
  })

  it('secrets are read from one variable', () => {
    expect(parseSecrets(` k2:${secret}:with:colons , k1:${secret}`)).toEqual([
      { id: 'k2', secret: `${secret}:with:colons` },
      { id: 'k1', secret },
    ])
    expect(() => parseSecrets('nocolon')).toThrow('FLOWSTONE_GATE_SECRETS must be')
  })
})
