/** A client in a process of its own: starts a run and waits for its result. */
import { begin, tell } from './child.ts'
import { list } from './pipelines.ts'

const { flow } = await begin()
const run = await flow.materialize(list)
tell('ready', { run: run.id })
tell('result', { value: await run.result() })
await flow.close()
process.exit(0)
