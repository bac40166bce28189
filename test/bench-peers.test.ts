import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import { findProgram, type Machine, missing } from '../bench/peers/needs.ts'
import { PEERS } from '../bench/peers/peer.ts'

const scratch = mkdtempSync(join(tmpdir(), 'flowstone-peers-test-'))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

function machine(name: string, ...files: readonly string[]): Machine {
  const folder = join(scratch, name)
  for (const file of files) {
    mkdirSync(dirname(join(folder, file)), { recursive: true })
    writeFileSync(join(folder, file), '{}')
  }
  return { folder, path: join(folder, 'bin'), debian: join(folder, 'postgresql') }
}

describe('what bench:peers needs', () => {
  it('names each package and each program that is missing, and how to install it', () => {
    expect(missing(Object.values(PEERS), machine('empty'))).toEqual([
      'not installed in bench/peers: bullmq, ioredis, graphile-worker, @dbos-inc/dbos-sdk, @restatedev/restate-server, ' +
        '@restatedev/restate-sdk, @restatedev/restate-sdk-clients. Start this with "npm run bench:peers", which installs them',
      'redis-server is not on the PATH. On Debian: apt-get install -y redis-server',
      'initdb is not on the PATH. On Debian: apt-get install -y postgresql',
    ])
  })

  it('names only what the chosen peers need and do not have', () => {
    const { flowstone, bullmq, dbos } = PEERS
    if (!flowstone || !bullmq || !dbos) throw new Error('three peers')
    expect(missing([flowstone], machine('empty'))).toEqual([])
    const installed = ['bullmq', 'ioredis'].map((name) => `node_modules/${name}/package.json`)
    expect(missing([bullmq], machine('redis', ...installed, 'bin/redis-server'))).toEqual([])
    expect(missing([dbos], machine('postgres', 'postgresql/15/bin/initdb'))).toEqual([
      expect.stringMatching(/^not installed in bench\/peers: @dbos-inc\/dbos-sdk\. /),
    ])
  })

  it('finds a program on the PATH, and otherwise that of the newest PostgreSQL', () => {
    const versions = ['9', '17', '15'].map((version) => `postgresql/${version}/bin/initdb`)
    const debian = machine('debian', ...versions)
    expect(findProgram('initdb', debian)).toBe(join(debian.debian, '17/bin/initdb'))
    const both = machine('both', ...versions, 'bin/initdb')
    expect(findProgram('initdb', both)).toBe(join(both.path, 'initdb'))
  })
})

describe('npm run bench:peers', () => {
  it.each([
    [
      ['--only', 'bullmq,temporal'],
      '--only: there is no peer "temporal"; there are flowstone, bullmq, graphile-worker',
    ],
    [['--n', '0'], '--n must be a whole number from 1, not 0'],
    [['--repeats', 'many'], '--repeats must be a whole number from 1, not many'],
    [['--only', 'bullmq'], 'redis-server is not on the PATH. On Debian: apt-get install -y redis-server'],
  ])('refuses %j and says what to do', async (args, message) => {
    const started = promisify(execFile)(process.execPath, ['bench/peers/main.ts', ...args], {
      env: { ...process.env, PATH: scratch },
    })
    await expect(started).rejects.toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining(message) })
  })
})
