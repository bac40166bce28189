import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { asset, type ConnectOptions, connect, pipeline } from '../../src/index.ts'
import { reachOf } from '../../src/log/credentials.ts'
import { runCommand } from '../cli/kit.ts'
import { operatorMode } from '../kit/operator.ts'
import { rawNats } from '../kit/raw-nats.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace, listeningLogger, rejection } from '../kit/stage.ts'

const PEM = join(import.meta.dirname, '../kit/localhost.pem')
const made = asset('made', { execute: () => 'made' })

/** Whether engine, worker and client, all in one flow, can do their part. */
async function expectWorking(options: ConnectOptions): Promise<void> {
  const flow = await connect({ logger: listeningLogger(), ...options })
  await flow.engine()
  await flow.worker(pipeline('secured', [made]))
  const run = await flow.materialize(made)
  expect(await run.result({ signal: AbortSignal.timeout(20_000) })).toBe('made')
  await flow.close()
}

it('a server with TLS is used with the authority that signed it, and refused without', async () => {
  await using server = await rawNats({ tls: { cert_file: PEM, key_file: PEM } })
  const servers = `tls://localhost:${server.port}`
  const namespace = freshNamespace()
  await expectWorking({ servers, namespace, tls: { ca: PEM } })
  await using flow = await connect({ servers, namespace, tls: { ca: PEM } })
  const ends = new Date(new X509Certificate(readFileSync(PEM)).validTo).getTime() - Date.now()
  const certificate = (await flow.doctor()).find(({ check }) => check === 'server.certificate')
  expect(certificate?.level).toBe(ends > 30 * 86_400_000 ? 'ok' : ends > 0 ? 'warn' : 'error')
  expect(certificate?.says).toMatch(/^the TLS certificate of the server/)
  const refused = await rejection(connect({ servers, namespace, logger: listeningLogger() }))
  expect(refused.message).toMatch(/certificate/)
  const status = await runCommand(['status', '--all', '--server', servers, '--namespace', namespace, '--tls-ca', PEM], {
    cwd: import.meta.dirname,
  })
  expect(status).toMatchObject({ code: 0, stdout: expect.stringContaining('made') })
})

it('credentials of an operator, as nsc makes them, are used by all parts and by the command', async () => {
  using scratch = scratchFolder()
  const { config, creds } = operatorMode()
  await using server = await rawNats(config)
  const file = join(scratch.path, 'user.creds')
  writeFileSync(file, creds, { mode: 0o600 })
  const namespace = freshNamespace()
  await expectWorking({ servers: server.url, namespace, creds: file })
  expect(reachOf({ creds: file }, {}).user).toBe('user')
  const refused = await rejection(connect({ servers: server.url, namespace, logger: listeningLogger() }))
  expect(refused).toMatchObject({ code: 'unauthorized' })
  const status = await runCommand(
    ['status', '--all', '--server', server.url, '--namespace', namespace, '--creds', file],
    {
      cwd: import.meta.dirname,
    },
  )
  expect(status).toMatchObject({ code: 0, stdout: expect.stringContaining('made') })
})
