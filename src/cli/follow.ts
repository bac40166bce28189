/**
 * Shows how far a run is, until it has ended: bars on a terminal, else a line for each change. On
 * standard error: standard output has the result.
 */
import { printable } from '../../streams/text.ts'
import type { Flow } from '../client/flow.ts'
import type { Run, RunUpdate } from '../client/run.ts'
import type { Output } from './output.ts'
import { type Pace, runBlock, runLine, waitLines } from './progress.ts'
import { isLive, openScreen, type Screen } from './screen.ts'
import { watchWaiting } from './waiting.ts'

/** The time of a run and what is left of a scatter change by themselves. */
const TICK_MS = 1000
/** Many facts a second change a run. */
const DRAW_MS = 100
/** While the server is away, nobody knows what is left. */
const FRESH_MS = 5000
const NONE: ReadonlyMap<string, Pace> = new Map()

/** Resolves when the run has ended, or when nobody wants to follow it any more. */
export async function followRun(flow: Flow, run: Run, signal: AbortSignal, output: Output): Promise<void> {
  if (!output.json && isLive(process.stderr)) await draw(flow, run, signal)
  else await say(run, signal, output)
}

async function say(run: Run, signal: AbortSignal, output: Output): Promise<void> {
  let last = ''
  using _ = watchWaiting(run, (reasons) => {
    if (output.json && reasons.length > 0) console.error(JSON.stringify({ run: run.id, waitingFor: reasons }))
    for (const line of waitLines(reasons)) output.note(printable(line))
  })
  for await (const update of run.watch({ signal })) {
    const line = runLine(update)
    if (line !== last) output.note(line)
    last = line
  }
}

async function draw(flow: Flow, run: Run, signal: AbortSignal): Promise<void> {
  using screen = await openScreen(process.stderr)
  using live = new LiveRun(flow, run, screen)
  for await (const update of run.watch({ signal })) live.update(update)
}

class LiveRun {
  readonly #flow: Flow
  readonly #screen: Screen
  readonly #paces = new Map<string, Pace>()
  readonly #waiting: Disposable
  readonly #timer: NodeJS.Timeout
  #reasons: readonly string[] = []
  #update: RunUpdate | undefined
  #due: NodeJS.Timeout | undefined
  #asking = false
  #askedMs = Number.NEGATIVE_INFINITY

  constructor(flow: Flow, run: Run, screen: Screen) {
    this.#flow = flow
    this.#screen = screen
    this.#waiting = watchWaiting(run, (reasons) => {
      this.#reasons = reasons
    })
    this.#timer = setInterval(() => {
      void this.#ask()
      this.#draw()
    }, TICK_MS)
  }

  update(update: RunUpdate): void {
    const isFirst = this.#update === undefined
    this.#update = update
    if (isFirst) this.#draw()
    else
      this.#due ??= setTimeout(() => {
        this.#due = undefined
        this.#draw()
      }, DRAW_MS)
  }

  /** How fast the open scatters are, as the log says it. */
  async #ask(): Promise<void> {
    if (this.#asking) return
    this.#asking = true
    try {
      for (const { run, asset, status } of this.#update?.scatters ?? []) {
        if (status === 'open') this.#paces.set(asset, await this.#flow.scatter.status(`${run}.${asset}`))
      }
      this.#askedMs = performance.now()
    } catch {
      // The bar goes on without it.
    } finally {
      this.#asking = false
    }
  }

  #draw(): void {
    const update = this.#update
    if (!update) return
    const isFresh = performance.now() - this.#askedMs < FRESH_MS
    const progress = { ...update, paces: isFresh ? this.#paces : NONE, reasons: this.#reasons }
    this.#screen.draw(runBlock(progress, this.#screen.width, Date.now()))
  }

  [Symbol.dispose](): void {
    this.#waiting[Symbol.dispose]()
    clearInterval(this.#timer)
    clearTimeout(this.#due)
    this.#draw()
  }
}
