import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { scratchFolder } from '../kit/scratch.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const scratch = scratchFolder()
afterAll(() => scratch[Symbol.dispose]())

const Report = z.object({
  done: z.number(),
  words: z.number(),
  failed: z.number(),
  submitted: z.number(),
  reminders: z.number(),
  timeouts: z.number(),
  ends: z.record(z.string(), z.number()),
  answers: z.record(z.string(), z.number()),
})

describe('the example of signal gates', () => {
  it('submits each job once, goes on with each answer once, and fails those whose answer never came', {
    timeout: 180_000,
  }, async () => {
    const node = join(ROOT, 'node_modules', '.bin', 'node')
    const args = [
      join(ROOT, 'examples', 'signal-gate.ts'),
      '--jobs',
      '80',
      '--json',
      '--dir',
      join(scratch.path, 'nats'),
    ]
    const { stdout } = await promisify(execFile)(node, args, { timeout: 55_000 })
    const report = Report.parse(JSON.parse(stdout))
    // Of 20 jobs, one never answers and one has a wrong address; two answer twice.
    expect(report).toMatchObject({ submitted: 80, done: 72, failed: 8, reminders: 8, timeouts: 16 })
    expect(report.ends).toEqual({ signaled: 72, timed_out: 8 })
    expect(report.answers).toEqual({ 200: 72, 400: 2, 401: 2, 409: 8 })
    const silent = (job: number): boolean => job % 20 === 7 || job % 20 === 13
    const jobs = Array.from({ length: 80 }, (_, job) => job).filter((job) => !silent(job))
    expect(report.words).toBe(jobs.reduce((sum, job) => sum + 3 * job, 0))
  })
})
