/**
 * Restate: a handler calls another one for each instance and gathers their values, as its guide on
 * parallel work does. Three steps are a handler with three durable steps. The services are in this
 * process, and callers use its ingress over HTTP.
 */
import { once } from 'node:events'
import { createServer } from 'node:http2'
import { createRequire } from 'node:module'
import { type Context, createEndpointHandler, RestatePromise, service } from '@restatedev/restate-sdk'
import { connect } from '@restatedev/restate-sdk-clients'
import { findFreePorts } from '../../../src/server/ports.ts'
import { type InstanceKey, instanceKey, instanceValue } from '../../payload.ts'
import type { Works } from '../peer.ts'
import { launch, scratch, versionOf } from '../servers.ts'

const instances = service({
  name: 'instances',
  handlers: { one: async (_ctx: Context, _key: InstanceKey) => instanceValue(1) },
})

const works = service({
  name: 'works',
  handlers: {
    fanOut: async (ctx: Context, n: number) => {
      const { one } = ctx.serviceClient(instances)
      const values = await RestatePromise.all(Array.from({ length: n }, (_, i) => one(instanceKey(i))))
      return values.length
    },
    threeSteps: async (ctx: Context) => {
      for (const step of [1, 2, 3]) await ctx.run(`step-${step}`, () => instanceValue(step))
    },
  },
})

export async function begin(): Promise<Works> {
  await using stack = new AsyncDisposableStack()
  const [node = 0, ingress = 0, admin = 0] = await findFreePorts(3)
  const address = (port: number): string => `127.0.0.1:${port}`
  const program = serverProgram()
  const dir = scratch()
  const env = {
    ...process.env,
    RESTATE_BIND_ADDRESS: address(node),
    RESTATE_INGRESS__BIND_ADDRESS: address(ingress),
    RESTATE_ADMIN__BIND_ADDRESS: address(admin),
    RESTATE_LISTEN_MODE: 'tcp',
    RESTATE_DISABLE_TELEMETRY: 'true',
    RESTATE_LOG_DISABLE_ANSI_CODES: 'true',
    RUST_LOG: 'warn,restate=info',
  }
  stack.use(await launch(program, ['--no-logo', '--base-dir', dir], dir, { env, ready: /admin-api-server/ }))
  const endpoint = createServer(createEndpointHandler({ services: [instances, works], logger: () => undefined }))
  endpoint.listen(0, '127.0.0.1')
  stack.defer(() => void endpoint.close())
  await once(endpoint, 'listening')
  const at = endpoint.address()
  const uri = `http://${address(typeof at === 'object' && at ? at.port : 0)}`
  const answer = await fetch(`http://${address(admin)}/deployments`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ uri }),
  })
  if (!answer.ok) throw new Error(`Restate refused the services: ${await answer.text()}`)
  const client = connect({ url: `http://${address(ingress)}` }).serviceClient(works)
  const open = stack.move()
  return {
    version: `restate-server ${versionOf(program)}`,
    fanOut: async (n) => await client.fanOut(n),
    threeSteps: async () => await client.threeSteps(),
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  }
}

/** The binary that npm has installed for this machine, without the script that starts it. */
function serverProgram(): string {
  const server = createRequire(import.meta.url).resolve('@restatedev/restate-server/package.json')
  return createRequire(server).resolve(
    `@restatedev/restate-server-${process.platform}-${process.arch}/bin/restate-server`,
  )
}
