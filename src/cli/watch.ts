/** Looks again and again: `status --watch`, `scatter show --watch`. */
import { FlowStoneError } from '../../streams/errors.ts'
import type { Flow } from '../client/flow.ts'
import { EXIT, type Output } from './output.ts'
import { isLive, openScreen } from './screen.ts'

const LOOK_MS = 1000
/** A look may meet a server that goes away. */
const FAILURES_MAX = 3
/** What was said last is remembered of so many. */
const REMEMBERED = 10_000

export interface Look {
  /** For a terminal, where they are drawn in place of those before. */
  lines(): readonly string[]
  /** For a pipe, where what has changed is appended. */
  readonly changes: readonly Change[]
  /** Whether there is nothing more to see. */
  readonly hasEnded?: boolean
  /** Whether it ends at some time: then it is an interruption to stop it before. */
  readonly endsByItself?: boolean
}

export interface Change {
  readonly key: string
  readonly event: string
  readonly fields: Readonly<Record<string, unknown>>
  /** Another line is a change. */
  readonly line: string
}

/** Until nothing more is to be seen, or somebody stops it. Waits for a server that is away. */
export async function watch(
  flow: Flow,
  output: Output,
  stop: { readonly asked: Promise<string> },
  look: () => Promise<Look>,
): Promise<void> {
  const said = new Map<string, string>()
  let endsByItself = false
  const stopped = Promise.race([stop.asked, flow.closed]).then(() => 'stopped' as const)
  const next = looks(flow, look)
  using screen = !output.json && isLive(process.stdout) ? await openScreen(process.stdout) : undefined
  for (;;) {
    const seen = await Promise.race([next(), stopped])
    if (seen === 'stopped') break
    endsByItself = seen.endsByItself === true
    if (screen) screen.draw(seen.lines())
    else
      for (const { key, event, fields, line } of seen.changes) {
        if (said.get(key) !== line) output.event(event, fields, line)
        // The newest one is last.
        said.delete(key)
        said.set(key, line)
        const [oldest] = said.keys()
        if (said.size > REMEMBERED && oldest !== undefined) said.delete(oldest)
      }
    if (seen.hasEnded) return
    if ((await Promise.race([rest(), stopped])) === 'stopped') break
  }
  const reason = await Promise.race([flow.closed, Promise.resolve(undefined)])
  if (reason) throw reason
  if (endsByItself) process.exitCode = EXIT.interrupted
}

async function rest(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
}

/** The first look must succeed. A later one is made again, as long as the server is away. */
function looks(flow: Flow, look: () => Promise<Look>): () => Promise<Look> {
  let isFirst = true
  return async () => {
    let failures = 0
    for (;;) {
      try {
        const seen = await look()
        isFirst = false
        return seen
      } catch (error) {
        if (isFirst || !(error instanceof FlowStoneError) || error.code === 'not_found') throw error
        const isThere = await flow.ready().then(
          () => true,
          () => false,
        )
        if (isThere) failures += 1
        if (failures === FAILURES_MAX) throw error
      }
    }
  }
}
