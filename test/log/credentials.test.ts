import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createUser } from '@nats-io/nkeys'
import { describe, expect, it } from 'vitest'
import { connect } from '../../src/index.ts'
import { reachOf } from '../../src/log/credentials.ts'
import { rawNats } from '../kit/raw-nats.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace, listeningLogger, rejection } from '../kit/stage.ts'

describe('an address', () => {
  it.each([
    ['nats://me:pw@host:4222', 'nats://host:4222', { user: 'me', pass: 'pw' }],
    ['me:p%40w:x%2F@host', 'nats://host', { user: 'me', pass: 'p@w:x/' }],
    ['nats://se%20cret@[::1]:4222', 'nats://[::1]:4222', { token: 'se cret' }],
    ['nats://me:100%@host:1/', 'nats://host:1', { user: 'me', pass: '100%' }],
    ['tls://me:a@b@host:4443', 'tls://host:4443', { user: 'me', pass: 'a@b', tls: {} }],
    ['nats://host:4222', 'nats://host:4222', {}],
  ])('%s gives its user and loses it', (text, address, options) => {
    expect(reachOf({ servers: text }, {})).toEqual({
      servers: [address],
      options,
      ...('user' in options ? { user: options.user } : {}),
    })
  })

  it('may be several, in one text too, and all may name the same user', () => {
    const { servers, options } = reachOf({ servers: 'nats://a:b@one, nats://a:b@two:1 ,three' }, {})
    expect(servers).toEqual(['nats://one', 'nats://two:1', 'nats://three'])
    expect(options).toEqual({ user: 'a', pass: 'b' })
    expect(() => reachOf({ servers: ['a:b@one', 'c:d@two'] }, {})).toThrow(/servers: .* same user/)
  })

  it.each(['nats://me:secret@', 'http://me:secret@host', 'nats://me:secret@ho st', 'nats://me:secret@host:99999'])(
    'that cannot be is refused without a word of the secret: %s',
    (text) => {
      const refused = (): unknown => reachOf({ servers: text }, {})
      expect(refused).toThrow(/servers: /)
      expect(refused).not.toThrow(/secret/)
    },
  )
})

describe('the JetStream domain', () => {
  it('is taken from the option, else the variable; an empty one is that of the server', () => {
    const env = { NATS_JS_DOMAIN: 'hub' }
    expect(reachOf({}, env).domain).toBe('hub')
    expect(reachOf({ domain: 'leaf' }, env).domain).toBe('leaf')
    expect(reachOf({ domain: '' }, env).domain).toBe('')
    expect(reachOf({}, {}).domain).toBeUndefined()
    expect(() => reachOf({}, { NATS_JS_DOMAIN: 'a.>' })).toThrow(/domain must be/)
  })
})

describe('the start of the subjects of answers', () => {
  it('is taken from the option, else the variable, and refused with wildcards', () => {
    const env = { NATS_INBOX_PREFIX: '_INBOX_worker' }
    expect(reachOf({}, env).options).toEqual({ inboxPrefix: '_INBOX_worker' })
    expect(reachOf({ inboxPrefix: 'answers.mine' }, env).options).toEqual({ inboxPrefix: 'answers.mine' })
    expect(() => reachOf({ inboxPrefix: '_INBOX.>' }, {})).toThrow(/^inboxPrefix must be .* got "_INBOX\.>"$/)
  })
})

describe('the environment', () => {
  it('is asked for what no option names', () => {
    const env = { NATS_URL: 'nats://host:1', NATS_USER: 'u', NATS_PASSWORD: 'p' }
    expect(reachOf({}, env)).toEqual({ servers: ['nats://host:1'], options: { user: 'u', pass: 'p' }, user: 'u' })
    expect(reachOf({ token: 't' }, env).options).toEqual({ token: 't' })
    expect(reachOf({ servers: 'x:y@other' }, env)).toEqual({
      servers: ['nats://other'],
      options: { user: 'x', pass: 'y' },
      user: 'x',
    })
    expect(reachOf({}, { NATS_TOKEN: 't', NATS_URL: '' }).options).toEqual({ token: 't' })
  })

  it('names files that must be there', () => {
    for (const [name, at] of [
      ['NATS_CA', /tls\.ca: the file \/nowhere/],
      ['NATS_CERT', /cert and key go together/],
    ] as const)
      expect(() => reachOf({}, { [name]: '/nowhere' })).toThrow(at)
    expect(() => reachOf({}, { NATS_USER: 'u', NATS_CREDS: 'c' })).toThrow(/user and creds do not go together/)
  })
})

describe('a context of the NATS command line', () => {
  it('gives the address, the user and the files', () => {
    using scratch = scratchFolder()
    const folder = join(scratch.path, 'nats', 'context')
    mkdirSync(folder, { recursive: true })
    const stored = { url: 'nats://one:1,nats://two:2', user: 'u', password: 'p', inbox_prefix: '_MINE', token: '' }
    writeFileSync(join(folder, 'prod.json'), JSON.stringify(stored))
    writeFileSync(join(folder, 'old.json'), JSON.stringify({ nsc: 'nsc://x' }))
    const env = { XDG_CONFIG_HOME: scratch.path }
    const wanted = {
      servers: ['nats://one:1', 'nats://two:2'],
      options: { user: 'u', pass: 'p', inboxPrefix: '_MINE' },
      user: 'u',
    }
    expect(reachOf({ context: 'prod' }, env)).toEqual(wanted)
    expect(reachOf({}, { ...env, NATS_CONTEXT: 'prod' })).toEqual(wanted)
    expect(reachOf({ context: 'prod', user: 'other' }, env).options).toEqual({ user: 'other', inboxPrefix: '_MINE' })
    expect(() => reachOf({ context: 'none' }, env)).toThrow(/there is no context none/)
    expect(() => reachOf({ context: '../prod' }, env)).toThrow(/no name of a context/)
    expect(() => reachOf({ context: 'old' }, env)).toThrow(/uses nsc/)
  })
})

it('all kinds of credentials connect, and refusals do not show them', async () => {
  using scratch = scratchFolder()
  const key = createUser()
  const users = [{ user: 'app', password: 's3cret@' }, { nkey: key.getPublicKey() }]
  await using server = await rawNats({ authorization: { users } })
  const at = `127.0.0.1:${server.port}`
  const nkey = join(scratch.path, 'user.nk')
  writeFileSync(nkey, `${new TextDecoder().decode(key.getSeed())}\n`)
  const logger = listeningLogger()
  const common = { namespace: freshNamespace(), logger }
  for (const how of [
    { servers: `nats://app:s3cret%40@${at}` },
    { servers: at, user: 'app', password: 's3cret@' },
    { servers: at, nkey },
  ]) {
    const flow = await connect({ ...common, ...how })
    expect(flow.connection.state).toBe('connected')
    expect(reachOf(how, {}).user).toBe('nkey' in how ? key.getPublicKey() : 'app')
    await flow.close()
  }
  const wrong = await rejection(connect({ ...common, servers: `nats://app:wr0ng@${at}` }))
  expect(wrong).toMatchObject({ code: 'unauthorized' })
  const nobody = await rejection(connect({ ...common, servers: 'nats://app:wr0ng@127.0.0.1:1' }))
  expect(nobody).toMatchObject({ code: 'unreachable', message: expect.stringContaining('127.0.0.1:1') })
  for (const error of [wrong, nobody])
    expect(`${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`).not.toMatch(/wr0ng/)
  expect(logger.lines.join('\n')).not.toMatch(/s3cret|wr0ng/)
})
