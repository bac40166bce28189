import { connect } from '../../../src/index.ts'

const flow = await connect()
for (const { pipeline, subscription, seq, reason } of await flow.events.refused({ limit: 20 }))
  console.log(`${pipeline}/${subscription} message ${seq}: ${reason}`)

// After the code was changed: await flow.events.retry('orders/order-created', 17)
await flow.close()
