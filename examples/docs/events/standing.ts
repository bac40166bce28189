import { connect } from '../../../src/index.ts'

const flow = await connect()
for (const { name, state, takenTo, last, waiting, open, maxOpen } of await flow.events.list())
  console.log(
    `${name} is ${state}: up to ${takenTo} of ${last}, ${waiting} wait, ${open} of ${maxOpen} open`,
  )
await flow.close()
