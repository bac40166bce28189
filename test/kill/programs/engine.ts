/** An engine in a process of its own. */
import { begin, tell } from './child.ts'

const { flow, settings } = await begin()
const { reconcileMs = 30_000, sealAfter, retention } = settings
const engine = await flow.engine({
  reconcileMs,
  ...(sealAfter === undefined ? {} : { sealAfter }),
  ...(retention === undefined ? {} : { retention }),
})
tell('ready', { engine: engine.id })
