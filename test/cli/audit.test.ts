import { hostname } from 'node:os'
import { expect, it } from 'vitest'
import type { AuditEntry, Finding } from '../../src/index.ts'
import { asset, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { openStage } from '../kit/stage.ts'
import { runCommand } from './kit.ts'

const server = useServer({ syncInterval: 'default' })
const report = asset('report', { execute: () => 'numbers' })

it('flowstone audit says who ran a command, and flowstone doctor ends with 1 when something is wrong', async () => {
  using scratch = scratchFolder()
  await using stage = await openStage(server.url, pipeline('p', [report]), { engine: false })
  const { namespace } = stage
  const at = { cwd: scratch.path, env: { NATS_URL: server.url, FLOWSTONE_NAMESPACE: namespace } }
  const sick = await runCommand(['doctor'], at)
  expect(sick.code).toBe(1)
  expect(sick.stdout).toMatch(
    /^error +engine\.active \(shard 0\): no engine is active\n +→ start one: flowstone engine/,
  )
  expect(sick.stdout).toMatch(/\d+ errors, \d+ warnings, \d+ not seen, \d+ fine\n$/)

  const engine = await stage.flow.engine()
  await engine.active
  const run = await runCommand(['run', 'p/report', '--no-wait'], at)
  expect(run.code).toBe(0)
  const id = run.stdout.trim()
  const audit = await runCommand(['audit', '--by', `*@${hostname()}`, '--since', '1h', '--kind', 'run', '--json'], at)
  const entries = JSON.parse(audit.stdout) as AuditEntry[]
  expect(entries).toMatchObject([{ kind: 'run.requested', what: 'p/report', run: id }])
  expect(entries[0]?.by).toMatch(/^cli:[^ ]+@/)
  expect((await runCommand(['audit', '--by', 'nobody'], at)).stdout).toBe('nothing was done\n')
  expect((await runCommand(['audit', '--since', 'soon'], at)).code).toBe(2)

  const well = await runCommand(['doctor', '--json'], at)
  const findings = JSON.parse(well.stdout) as Finding[]
  expect(findings.filter(({ level }) => level === 'error')).toEqual([])
  expect(well.code).toBe(0)
  expect((await runCommand(['doctor', '--strict'], at)).code).toBe(1)
})
