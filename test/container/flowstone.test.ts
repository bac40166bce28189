/** The image of the Dockerfile, as deploy/compose.yml runs it. */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, expect, it } from 'vitest'
import { scratchFolder } from '../kit/scratch.ts'
import { until } from '../kit/until.ts'
import { baseImages } from './bases.ts'
import { compose } from './compose.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const IMAGE = 'flowstone-test:latest'
const BUILD_MS = 900_000
const FILE = ['-p', 'flowstone-deploy-test', '-f', 'deploy/compose.yml']

const SLOW = `
import { asset, pipeline } from 'flowstone'
const slow = asset('slow', {
  execute: async () => {
    console.log('begun')
    await new Promise((resolve) => setTimeout(resolve, 5000))
    return 'finished while it was stopped'
  },
})
export default pipeline('weather', [slow])
`

function docker(...args: string[]): string {
  return execFileSync('docker', args, { encoding: 'utf8', cwd: ROOT }).trim()
}

beforeAll(() => {
  const args = ['build', ...baseImages(), '-t', IMAGE, '.']
  execFileSync('docker', args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] })
}, BUILD_MS)

/** All services of deploy/compose.yml, for the length of a test. */
function deployment(pipeline?: string): Disposable & { readonly run: (...args: string[]) => string } {
  const env = {
    FLOWSTONE_IMAGE: IMAGE,
    FLOWSTONE_GATE_SECRETS: `k1:${'s'.repeat(32)}`,
    ...(pipeline === undefined ? {} : { FLOWSTONE_PIPELINE: pipeline }),
  }
  const run = (...args: string[]): string => compose([...FILE, ...args], env)
  const down = (): void => void run('down', '--volumes')
  try {
    run('up', '-d', '--no-build', '--wait')
  } catch (error) {
    console.error(run('logs'))
    down()
    throw error
  }
  return { run, [Symbol.dispose]: down }
}

const containerOf = (run: (...args: string[]) => string, service: string): string => run('ps', '-q', service).trim()

it('the image shows its version, as a user without rights and without a shell', () => {
  expect(docker('run', '--rm', IMAGE, '--version')).toMatch(/^\d+\.\d+\.\d+$/)
  expect(docker('run', '--rm', '--entrypoint', '/nodejs/bin/node', IMAGE, '-p', 'process.getuid()')).toBe('65532')
  expect(() => docker('run', '--rm', '--entrypoint', '/bin/sh', IMAGE, '-c', 'true')).toThrow()
})

it('deploy/compose.yml runs two engines, a worker and HTTP, and makes an asset', async () => {
  using services = deployment()
  expect(services.run('run', '--rm', 'worker', 'run', 'weather/report')).toContain('Lima: sunny')
  const answer = await fetch('http://127.0.0.1:8080/readyz')
  expect([answer.status, await answer.text()]).toEqual([200, 'ready\n'])
  const engine = containerOf(services.run, 'engine-1')
  docker('stop', engine)
  expect(docker('inspect', '-f', '{{.State.ExitCode}}', engine)).toBe('0')
  expect(services.run('run', '--rm', 'worker', 'run', 'weather/report')).toContain('Quito: sunny')
})

it('a worker that is stopped is process 1, gets SIGTERM, and finishes what runs', async () => {
  using scratch = scratchFolder()
  const file = join(scratch.path, 'pipeline.js')
  writeFileSync(file, SLOW)
  using services = deployment(file)
  const run = services.run('run', '--rm', 'worker', 'run', 'weather/slow', '--no-wait').trim()
  await until('its code runs', () => services.run('logs', 'worker').includes('begun'))
  const worker = containerOf(services.run, 'worker')
  docker('stop', '-t', '60', worker)
  expect(docker('inspect', '-f', '{{.State.ExitCode}} {{.Config.User}}', worker)).toBe('0 65532:65532')
  const id = run.split(/\s+/).at(-1) ?? ''
  expect(services.run('run', '--rm', 'http', 'value', 'weather/slow', '--run', id)).toContain(
    'finished while it was stopped',
  )
})
