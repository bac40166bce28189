/** Asks why a run that somebody follows does not go on. */

import type { Run } from '../client/run.ts'
import type { RunStatus } from '../client/run-status.ts'

const LOOK_MS = 2000

/** From two seconds on; calls back whenever the reasons have changed. */
export function watchWaiting(run: Run, onReasons: (reasons: readonly string[]) => void): Disposable {
  let last = ''
  let looking = false
  const look = async (): Promise<void> => {
    if (looking) return
    looking = true
    try {
      const status = await run.status()
      const reasons = status ? reasonsOf(status) : []
      const text = reasons.join('\n')
      if (text !== last) onReasons(reasons)
      last = text
    } catch {
      // Of a server that is away others tell.
    } finally {
      looking = false
    }
  }
  const timer = setInterval(() => void look(), LOOK_MS)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** What waits for something of the same run is left out: that says why itself. */
function reasonsOf({ waitingFor, assets }: RunStatus): string[] {
  if (waitingFor.length > 0) return [...waitingFor]
  return Object.entries(assets).flatMap(([name, asset]) =>
    asset.status === 'waiting' ? [] : asset.waitingFor.map((reason) => `${reason} (${name})`),
  )
}
