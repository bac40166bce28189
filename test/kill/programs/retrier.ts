/** A client in a process of its own: has a run tried again. */
import { begin, tell } from './child.ts'

const { flow, settings } = await begin()
const { id, isNew } = await flow.retry(settings.run ?? '')
tell('ready', { run: id, isNew })
await flow.close()
process.exit(0)
