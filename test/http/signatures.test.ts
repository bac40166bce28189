import { createHmac } from 'node:crypto'
import { expect, it } from 'vitest'
import { SCHEMES, type Signed } from '../../src/http/shared/signatures.ts'

/** What the makers publish in their documentation, to try one's own code on. */
const PUBLISHED = {
  github: {
    secret: "It's a Secret to Everybody",
    body: 'Hello, World!',
    headers: { 'X-Hub-Signature-256': 'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17' },
    atMs: 0,
  },
  slack: {
    secret: '8f742231b10e8888abcd99yyyzzz85a5',
    body: 'token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c',
    headers: {
      'X-Slack-Signature': 'v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503',
      'X-Slack-Request-Timestamp': '1531420618',
    },
    atMs: 1_531_420_618_000,
  },
  standard: {
    secret: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
    body: '{"test": 2432232314}',
    headers: {
      'webhook-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
      'webhook-timestamp': '1614265330',
      'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
    },
    atMs: 1_614_265_330_000,
  },
} as const

const TOLERANCE_MS = 300_000

interface Sample {
  readonly secret: string
  readonly body: string
  readonly headers: Readonly<Record<string, string>>
  readonly atMs: number
}

/** Stripe publishes how it signs, and no example with its result. */
function stripe(atMs: number, secret = 'whsec_0123456789abcdef', body = '{"id":"evt_1"}'): Sample {
  const time = Math.floor(atMs / 1000)
  const v1 = createHmac('sha256', secret).update(`${time}.${body}`).digest('hex')
  return { secret, body, headers: { 'Stripe-Signature': `t=${time},v1=${v1},v0=${'0'.repeat(64)}` }, atMs }
}

const SAMPLES: Readonly<Record<keyof typeof SCHEMES, Sample>> = { ...PUBLISHED, stripe: stripe(1_700_000_000_000) }
const SCHEME_NAMES = ['github', 'slack', 'standard', 'stripe'] as const

function signed(sample: Sample, changes: Partial<Signed> = {}): Signed {
  return {
    headers: new Headers(sample.headers),
    body: Buffer.from(sample.body),
    secrets: [sample.secret],
    nowMs: sample.atMs,
    toleranceMs: TOLERANCE_MS,
    ...changes,
  }
}

it.each(SCHEME_NAMES)('%s: what its maker publishes holds', (scheme) => {
  expect(SCHEMES[scheme](signed(SAMPLES[scheme]))).toBe(true)
})

it.each(SCHEME_NAMES)('%s: any of several secrets may have signed, as while they are rotated', (scheme) => {
  const sample = SAMPLES[scheme]
  const other = 'whsec_YW5vdGhlciBzZWNyZXQgb2YgdGhlIHNhbWU='
  expect(SCHEMES[scheme](signed(sample, { secrets: [other, sample.secret] }))).toBe(true)
  expect(SCHEMES[scheme](signed(sample, { secrets: [other] }))).toBe(false)
})

it.each(SCHEME_NAMES)('%s: a changed body, a missing header, or a broken one does not hold', (scheme) => {
  const sample = SAMPLES[scheme]
  expect(SCHEMES[scheme](signed(sample, { body: Buffer.from(`${sample.body} `) }))).toBe(false)
  expect(SCHEMES[scheme](signed(sample, { body: new Uint8Array() }))).toBe(false)
  for (const name of Object.keys(sample.headers)) {
    const without = new Headers(sample.headers)
    without.delete(name)
    expect(SCHEMES[scheme](signed(sample, { headers: without }))).toBe(false)
    for (const broken of ['', 'x', 'sha256=', 'v0=', 'v1,', 't=,v1=', '-1', '1e9']) {
      const headers = new Headers(sample.headers)
      headers.set(name, broken)
      expect(SCHEMES[scheme](signed(sample, { headers }))).toBe(false)
    }
  }
})

it.each(SCHEME_NAMES)('%s: no other signature holds, whichever character is changed', (scheme) => {
  const sample = SAMPLES[scheme]
  const name = Object.keys(sample.headers).find((header) => /signature/i.test(header)) ?? ''
  const value = sample.headers[name] ?? ''
  // Of Stripe's header the last part is of a scheme that does not count.
  const end = scheme === 'stripe' ? value.indexOf(',v0=') : value.length
  for (let i = 0; i < end; i++) {
    const headers = new Headers(sample.headers)
    // Base64 of 32 bytes has two bits in its last digit that mean nothing; that digit is E, and A
    // has other bits that do.
    headers.set(name, `${value.slice(0, i)}${value[i] === 'a' ? 'b' : 'a'}${value.slice(i + 1)}`)
    expect(SCHEMES[scheme](signed(sample, { headers })), `character ${i}`).toBe(false)
  }
})

it.each(['slack', 'standard', 'stripe'] as const)(
  '%s: a message of more than five minutes ago, or ahead, is a replay',
  (scheme) => {
    const sample = SAMPLES[scheme]
    const at = (offsetMs: number) => SCHEMES[scheme](signed(sample, { nowMs: sample.atMs + offsetMs }))
    expect(at(TOLERANCE_MS)).toBe(true)
    expect(at(-TOLERANCE_MS)).toBe(true)
    expect(at(TOLERANCE_MS + 1)).toBe(false)
    expect(at(-TOLERANCE_MS - 1)).toBe(false)
  },
)

it('stripe: one of several signatures is enough, and those of other versions do not count', () => {
  const sample = stripe(1_700_000_000_000)
  const header = sample.headers['Stripe-Signature'] ?? ''
  const two = header.replace(',v1=', `,v1=${'a'.repeat(64)},v1=`)
  expect(SCHEMES.stripe(signed(sample, { headers: new Headers({ 'Stripe-Signature': two }) }))).toBe(true)
  const v0 = header.replace(',v0=', ',x=').replace(',v1=', ',v0=')
  expect(SCHEMES.stripe(signed(sample, { headers: new Headers({ 'Stripe-Signature': v0 }) }))).toBe(false)
})
