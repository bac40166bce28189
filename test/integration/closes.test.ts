import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

interface Started {
  readonly child: ChildProcess
  readonly said: () => string
  /** Its code and signal. */
  readonly exited: Promise<unknown[]>
}

function start(how: 'close' | 'signal', file = 'closes.ts'): Started {
  const program = join(import.meta.dirname, 'programs', file)
  const child = spawn(process.execPath, [program, server.url, freshNamespace(), how], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  let said = ''
  child.stdout?.on('data', (data: Buffer) => {
    said += data.toString()
  })
  return { child, said: () => said, exited: once(child, 'exit') }
}

/** Longer than a process needs to end, and shorter than timers that one would leave behind. */
const AT_ONCE_MS = 2500

describe('a process', () => {
  it('a process ends at once when its flow is closed: no timer is left, and slots are given back', async () => {
    const { said, exited } = start('close')
    await until('it has closed', () => said().includes('closed'))
    const closedMs = performance.now()
    const [code] = await exited
    expect(performance.now() - closedMs).toBeLessThan(AT_ONCE_MS * busy())
    expect(code).toBe(0)
    expect(said()).toContain('closed false')
  })

  it('a process ends at once when its flow is closed while a worker and an engine start', async () => {
    const { said, exited } = start('close', 'closes-early.ts')
    await until('it has closed', () => said().includes('closed'))
    const closedMs = performance.now()
    const [code] = await exited
    expect(performance.now() - closedMs).toBeLessThan(AT_ONCE_MS * busy())
    expect(code).toBe(0)
  })

  it.each(['SIGTERM', 'SIGINT'] as const)('whose worker handles signals ends in order at %s', async (signal) => {
    const { child, said, exited } = start('signal')
    await until('it is ready', () => said().includes('ready'))
    child.kill(signal)
    const signalledMs = performance.now()
    const [code, by] = await exited
    expect([code, by]).toEqual([0, null])
    expect(performance.now() - signalledMs).toBeLessThan(5000 * busy())
  })
})
