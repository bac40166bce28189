import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { cacheFolder } from '../../src/server/cache.ts'
import { ensureNatsServer, RELEASE_VERSION } from '../../src/server/index.ts'
import { fetchRelease, pinnedSha256, releaseArchiveName } from '../../src/server/release.ts'
import { MIN_SERVER_VERSION } from '../../streams/version.ts'
import { fakeNatsServer, releaseSite } from '../kit/fake-nats.ts'
import { scratchFolder } from '../kit/scratch.ts'

/** An environment with nothing in it but an empty cache and an empty folder as PATH. */
function emptyEnvironment(folder: string): NodeJS.ProcessEnv & { PATH: string; FLOWSTONE_CACHE: string } {
  const path = join(folder, 'bin')
  mkdirSync(path, { recursive: true })
  return { PATH: path, FLOWSTONE_CACHE: join(folder, 'cache') }
}

/** Of this version no archive has a pinned hash. */
const NOT_PINNED = '2.14.3'

describe('what is there is used, in this order', () => {
  it('the program that FLOWSTONE_NATS_SERVER names goes before the PATH', async () => {
    using scratch = scratchFolder()
    const env = emptyEnvironment(scratch.path)
    fakeNatsServer(env.PATH, '2.15.0')
    const given = fakeNatsServer(join(scratch.path, 'given'), '2.14.0')
    const found = await ensureNatsServer({ env: { ...env, FLOWSTONE_NATS_SERVER: given } })
    expect(found).toEqual({ path: given, version: '2.14.0', source: 'given' })
  })

  it('a named program that is too old is refused, even when the PATH has a good one', async () => {
    using scratch = scratchFolder()
    const env = emptyEnvironment(scratch.path)
    fakeNatsServer(env.PATH, '2.15.0')
    const old = fakeNatsServer(join(scratch.path, 'old'), '2.10.27')
    await expect(ensureNatsServer({ env: { ...env, FLOWSTONE_NATS_SERVER: old } })).rejects.toMatchObject({
      code: 'server_unusable',
      message: expect.stringContaining(`2.10.27, too old: ${MIN_SERVER_VERSION} or newer`),
    })
  })

  it('a named program that is not there, or does not run, is refused', async () => {
    using scratch = scratchFolder()
    const missing = join(scratch.path, 'missing')
    await expect(ensureNatsServer({ serverPath: missing })).rejects.toMatchObject({
      code: 'server_unusable',
      message: expect.stringContaining('not found'),
    })
    const broken = join(scratch.path, 'broken')
    writeFileSync(broken, 'no program')
    chmodSync(broken, 0o755)
    await expect(ensureNatsServer({ serverPath: broken })).rejects.toMatchObject({ code: 'server_unusable' })
  })

  it('an old nats-server on the PATH is passed over for a newer one behind it', async () => {
    using scratch = scratchFolder()
    const env = emptyEnvironment(scratch.path)
    fakeNatsServer(env.PATH, '2.10.27')
    const good = fakeNatsServer(join(scratch.path, 'bin2'), '2.15.0')
    const found = await ensureNatsServer({ env: { ...env, PATH: `${env.PATH}:${join(scratch.path, 'bin2')}` } })
    expect(found).toEqual({ path: good, version: '2.15.0', source: 'path' })
  })

  it('the PATH goes before the cache, and of the cache the newest', async () => {
    using scratch = scratchFolder()
    const env = emptyEnvironment(scratch.path)
    fakeNatsServer(join(env.FLOWSTONE_CACHE, 'nats-server', '2.9.0'), '2.9.0')
    fakeNatsServer(join(env.FLOWSTONE_CACHE, 'nats-server', '2.14.9'), '2.14.9')
    fakeNatsServer(join(env.FLOWSTONE_CACHE, 'nats-server', '2.14.10'), '2.14.10')
    expect(await ensureNatsServer({ env })).toMatchObject({ version: '2.14.10', source: 'cache' })
    fakeNatsServer(env.PATH, '2.14.0')
    expect(await ensureNatsServer({ env })).toMatchObject({ version: '2.14.0', source: 'path' })
  })

  it('when an exact version is asked for, another one will not do', async () => {
    using scratch = scratchFolder()
    const env = emptyEnvironment(scratch.path)
    fakeNatsServer(env.PATH, '2.15.0')
    fakeNatsServer(join(env.FLOWSTONE_CACHE, 'nats-server', '2.14.5'), '2.14.5')
    expect(await ensureNatsServer({ env, version: '2.14.5' })).toMatchObject({ source: 'cache' })
    await expect(ensureNatsServer({ env, version: '2.14.6', from: [] })).rejects.toMatchObject({
      code: 'server_not_found',
    })
  })
})

describe('what is missing is fetched', () => {
  it('from the release archive, once; the cache has it from then on', async () => {
    using scratch = scratchFolder()
    await using site = await releaseSite(join(scratch.path), RELEASE_VERSION)
    const env = {
      ...emptyEnvironment(scratch.path),
      FLOWSTONE_NATS_DOWNLOAD_BASE: site.base,
      FLOWSTONE_NATS_SHA256: site.sha256,
    }
    const options = { env, from: ['release'], quiet: true } as const
    const path = join(env.FLOWSTONE_CACHE, 'nats-server', RELEASE_VERSION, 'nats-server')
    expect(await ensureNatsServer(options)).toEqual({ path, version: RELEASE_VERSION, source: 'release' })
    const asked = site.requests.length
    expect(await ensureNatsServer(options)).toEqual({ path, version: RELEASE_VERSION, source: 'cache' })
    expect(site.requests).toHaveLength(asked)
    expect(readdirSync(join(env.FLOWSTONE_CACHE, 'nats-server')), 'nothing else is left').toEqual([RELEASE_VERSION])
  })

  it('by several at once, and all of them get a whole program', async () => {
    using scratch = scratchFolder()
    await using site = await releaseSite(scratch.path, NOT_PINNED)
    const env = { ...emptyEnvironment(scratch.path), FLOWSTONE_NATS_DOWNLOAD_BASE: site.base }
    const found = await Promise.all(
      Array.from({ length: 8 }, () => ensureNatsServer({ env, version: NOT_PINNED, from: ['release'], quiet: true })),
    )
    expect(new Set(found.map((binary) => `${binary.path} ${binary.version}`)).size).toBe(1)
  })

  it.each(['corrupt', 'unlisted'] as const)('but an archive with a %s checksum is refused', async (fault) => {
    using scratch = scratchFolder()
    await using site = await releaseSite(scratch.path, NOT_PINNED, fault)
    const env = { ...emptyEnvironment(scratch.path), FLOWSTONE_NATS_DOWNLOAD_BASE: site.base }
    await expect(ensureNatsServer({ env, version: NOT_PINNED, from: ['release'], quiet: true })).rejects.toMatchObject({
      code: 'server_not_found',
      message: expect.stringContaining('refused'),
    })
    expect(readdirSync(join(env.FLOWSTONE_CACHE, 'nats-server'))).toEqual([])
  })

  it('a pinned checksum goes before what the site says', async () => {
    using scratch = scratchFolder()
    await using site = await releaseSite(scratch.path, RELEASE_VERSION)
    const name = releaseArchiveName(RELEASE_VERSION, process.platform, process.arch) ?? ''
    const fetched = fetchRelease(scratch.path, {
      version: RELEASE_VERSION,
      base: site.base,
      pins: { [name]: 'f'.repeat(64) },
    })
    await expect(fetched).rejects.toThrow(/was expected: refused/)
    expect(site.requests.some((request) => request.endsWith('SHA256SUMS'))).toBe(false)
  })

  it('an archive that is not the pinned one is refused, whatever its site says of it', async () => {
    using scratch = scratchFolder()
    for (const arch of ['x64', 'arm64', 'ia32', 'ppc64', 's390x', 'riscv64', 'loong64'])
      expect(pinnedSha256(releaseArchiveName(RELEASE_VERSION, 'linux', arch) ?? ''), arch).toMatch(/^[0-9a-f]{64}$/)
    await using site = await releaseSite(scratch.path, RELEASE_VERSION)
    const env = { ...emptyEnvironment(scratch.path), FLOWSTONE_NATS_DOWNLOAD_BASE: site.base }
    await expect(ensureNatsServer({ env, from: ['release'], quiet: true })).rejects.toThrow(/was expected: refused/)
    expect(site.requests.some((request) => request.endsWith('SHA256SUMS'))).toBe(false)
  })

  it('a plain http mirror is refused unless the hash of the archive is known', async () => {
    using scratch = scratchFolder()
    const env = { ...emptyEnvironment(scratch.path), FLOWSTONE_NATS_DOWNLOAD_BASE: 'http://127.0.0.1:1' }
    const options = { version: NOT_PINNED, from: ['release'], quiet: true } as const
    await expect(ensureNatsServer({ ...options, env })).rejects.toThrow(
      /plain http mirror, and no SHA-256 of nats-server-v\S+ is pinned: refused. Use https, or set FLOWSTONE_NATS_SHA256/,
    )
    const known = { ...env, FLOWSTONE_NATS_SHA256: 'a'.repeat(64) }
    await expect(ensureNatsServer({ ...options, env: known })).rejects.toThrow('ECONNREFUSED')
    const wrong = { ...env, FLOWSTONE_NATS_SHA256: 'none' }
    await expect(ensureNatsServer({ ...options, env: wrong })).rejects.toThrow('must be 64 hex digits')
  })

  it('a release that turns out to be another version is not installed', async () => {
    using scratch = scratchFolder()
    await using site = await releaseSite(scratch.path, '2.14.1')
    const env = { ...emptyEnvironment(scratch.path), FLOWSTONE_NATS_DOWNLOAD_BASE: site.base }
    await expect(ensureNatsServer({ env, version: '2.14.2', from: ['release'], quiet: true })).rejects.toMatchObject({
      message: expect.stringContaining('HTTP 404'),
    })
  })

  it('a site that takes the connection and then says nothing is given up', { timeout: 10_000 }, async () => {
    using scratch = scratchFolder()
    // TLS never gets an answer, so the connection is never established as far as https is
    // concerned.
    const silent = createServer()
    await new Promise<void>((done) => silent.listen(0, '127.0.0.1', done))
    const address = silent.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    try {
      const env = {
        ...emptyEnvironment(scratch.path),
        FLOWSTONE_NATS_DOWNLOAD_BASE: `https://127.0.0.1:${port}`,
      }
      await expect(ensureNatsServer({ env, from: ['release'], quiet: true })).rejects.toMatchObject({
        message: expect.stringContaining('no connection within 3 s'),
      })
    } finally {
      silent.close()
    }
  })
})

it('when nothing helps, the error lists what was tried and what the user can do', async () => {
  using scratch = scratchFolder()
  const env = { ...emptyEnvironment(scratch.path), FLOWSTONE_NATS_DOWNLOAD_BASE: 'https://127.0.0.1:1' }
  fakeNatsServer(env.PATH, '2.10.27')
  const error = await ensureNatsServer({ env, from: ['release'], quiet: true }).catch((error: unknown) => error)
  const text = String(error)
  for (const tried of ['PATH: ', '2.10.27', 'cache: none in', `official release ${RELEASE_VERSION}`, 'ECONNREFUSED']) {
    expect(text).toContain(tried)
  }
  for (const option of ['NATS_URL=', 'docker compose up -d', 'FLOWSTONE_NATS_SERVER', 'FLOWSTONE_NATS_DOWNLOAD_BASE']) {
    expect(text).toContain(option)
  }
})

it('release archives are named as the project names them', () => {
  expect(releaseArchiveName('2.15.1', 'linux', 'x64')).toBe('nats-server-v2.15.1-linux-amd64.tar.gz')
  expect(releaseArchiveName('2.15.1', 'darwin', 'arm64')).toBe('nats-server-v2.15.1-darwin-arm64.tar.gz')
  expect(releaseArchiveName('2.15.1', 'win32', 'x64')).toBe('nats-server-v2.15.1-windows-amd64.zip')
  expect(releaseArchiveName('2.15.1', 'sunos', 'x64')).toBeUndefined()
})

it('the cache is where the user wants it', () => {
  expect(cacheFolder({ FLOWSTONE_CACHE: '/somewhere', XDG_CACHE_HOME: '/xdg' })).toBe('/somewhere')
})
