/** An engine in a process of its own. */
import { begin, tell } from './child.ts'

const { flow, settings } = await begin()
const { reconcileMs = 30_000, sealAfter, snapshotEvery, retention } = settings
const engine = await flow.engine({
  reconcileMs,
  ...(sealAfter === undefined ? {} : { sealAfter }),
  ...(snapshotEvery === undefined ? {} : { snapshotEvery }),
  ...(retention === undefined ? {} : { retention }),
})
tell('ready', { engine: engine.id })
