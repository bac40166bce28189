import { serveMetrics } from '../../../src/http/index.ts'
import { connect } from '../../../src/index.ts'

const PORT = 0
// #region metrics
const flow = await connect()
const metrics = await serveMetrics({ port: PORT, flow })
await flow.engine() // counted from the beginning
// #endregion
const text = await (await fetch(metrics.url)).text()
console.log(text.split('\n').find((line) => line.startsWith('flowstone_server_readable')))
await metrics.close()
await flow.close()
// prints: flowstone_server_readable 1
