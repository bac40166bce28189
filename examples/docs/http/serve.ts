import { serveGates } from '../../../src/http/index.ts'
import { connect } from '../../../src/index.ts'

const secret = 'at least 32 characters, the same in all processes'

// #region serve
const flow = await connect({
  gates: { secrets: [{ id: 'k1', secret }], baseUrl: 'https://flows.example.com' },
})
const server = await serveGates(flow, { port: 0 }) // any free port; default 8080
console.log(`gates at ${server.url}/hooks/flowstone/signal/<token>`)
// #endregion

const health = await fetch(`${server.url}/healthz`)
const ready = await fetch(`${server.url}/readyz`)
console.log(health.status, ready.status)
await server.close()
await flow.close()
// prints: gates at http://127.0.0.1:…/hooks/flowstone/signal/<token>
// prints: 200 200
