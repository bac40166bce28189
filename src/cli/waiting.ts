/** Says on standard error why a run that somebody follows does not go on. */

import { printable } from '../../streams/text.ts'
import type { Run } from '../client/run.ts'
import type { RunStatus } from '../client/run-status.ts'
import type { Output } from './output.ts'

const LOOK_MS = 2000
const SHOWN_MAX = 10

/** From two seconds on; again whenever the reasons change. */
export function tellWaiting(run: Run, output: Output): Disposable {
  let said = ''
  let looking = false
  const look = async (): Promise<void> => {
    if (looking) return
    looking = true
    try {
      const status = await run.status()
      const reasons = status ? reasonsOf(status) : []
      const text = reasons.join('\n')
      if (text !== said) tell(output, run.id, reasons)
      said = text
    } catch {
      // Of a server that is away others tell.
    } finally {
      looking = false
    }
  }
  const timer = setInterval(() => void look(), LOOK_MS)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

function tell(output: Output, run: string, reasons: readonly string[]): void {
  if (output.json && reasons.length > 0) console.error(JSON.stringify({ run, waitingFor: reasons }))
  for (const reason of reasons.slice(0, SHOWN_MAX)) output.note(`  waits for ${printable(reason)}`)
  if (reasons.length > SHOWN_MAX) output.note(`  … and ${reasons.length - SHOWN_MAX} more`)
}

/** What waits for something of the same run is left out: that says why itself. */
function reasonsOf({ waitingFor, assets }: RunStatus): string[] {
  if (waitingFor.length > 0) return [...waitingFor]
  return Object.entries(assets).flatMap(([name, asset]) =>
    asset.status === 'waiting' ? [] : asset.waitingFor.map((reason) => `${reason} (${name})`),
  )
}
