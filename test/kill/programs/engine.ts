/** An engine in a process of its own. */
import { begin, tell } from './child.ts'

const { flow, settings } = await begin()
const engine = await flow.engine({ reconcileMs: settings.reconcileMs ?? 30_000 })
tell('ready', { engine: engine.id })
