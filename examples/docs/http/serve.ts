import { serveGates } from '../../../src/http/index.ts'
import { connect } from '../../../src/index.ts'

const namespace = 'docs-http-serve'
const secret = 'at least 32 characters, the same in all processes'

// #region serve
const flow = await connect({
  namespace,
  gates: { secrets: [{ id: 'k1', secret }], baseUrl: 'https://flows.example.com' },
})
const server = await serveGates(flow, { port: 0 }) // any free port; default 8080
console.log(`gates at ${server.url}/hooks/flowstone/signal/<token>`)
// #endregion

await flow.setup()
const health = await fetch(`${server.url}/healthz`)
const ready = await fetch(`${server.url}/readyz`)
console.log(health.status, ready.status)
await server.close()
await flow.close()
