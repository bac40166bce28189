/** Stops in order what a process runs, when it is asked to end. */
import { messageOf } from '../../streams/errors.ts'
import type { Logger } from '../telemetry.ts'

const handled = new WeakSet<object>()

/** Once for each flow. */
export function closeOnSignals(flow: { close(): Promise<void> }, logger: Logger): void {
  if (handled.has(flow)) return
  handled.add(flow)
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.once(signal, () => {
      flow.close().catch((error: unknown) => logger.error(`closing after ${signal} failed: ${messageOf(error)}`))
    })
}
