/**
 * Live updates. A tab has one connection for all that its parts want to hear of, because a browser
 * has six to a host for all of its tabs. It is closed while the tab is hidden or shows the past.
 */
import type { Query } from './client.ts'
import { eventsOf, type StreamEvent } from './events.ts'

export interface Topics {
  readonly runs?: boolean
  readonly gates?: boolean
  readonly facts?: boolean
  readonly run?: readonly string[]
  readonly scatter?: readonly string[]
  /** Runs whose code logs. */
  readonly logs?: readonly string[]
}

export type LiveState = 'off' | 'connecting' | 'live' | 'away'

export interface LiveOptions {
  readonly open: (query: Query, signal: AbortSignal) => Promise<ReadableStream<Uint8Array>>
  readonly onState: (state: LiveState) => void
  /** After a first break so long, then twice as long, up to sixteen times. */
  readonly againMs?: number
  /** The server sends a remark every 15 seconds. */
  readonly silentMs?: number
  /** Parts come and go together: the connection is changed once. */
  readonly settleMs?: number
}

interface Listener {
  readonly topics: Topics
  readonly on: (event: StreamEvent) => void
}

export class Live {
  readonly #options: LiveOptions
  readonly #listeners = new Set<Listener>()
  #isWanted = false
  #topics = ''
  #leave: AbortController | undefined
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(options: LiveOptions) {
    this.#options = options
  }

  /** Whether anybody looks at the present. */
  want(isWanted: boolean): void {
    this.#isWanted = isWanted
    this.#settle()
  }

  /** Returns how to stop. After a break all comes anew. */
  listen(topics: Topics, on: (event: StreamEvent) => void): () => void {
    const listener = { topics, on }
    this.#listeners.add(listener)
    this.#settle()
    return () => {
      this.#listeners.delete(listener)
      this.#settle()
    }
  }

  #settle(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#change(), this.#options.settleMs ?? 50)
  }

  #change(): void {
    const query = queryOf([...this.#listeners].map(({ topics }) => topics))
    const topics = this.#isWanted && query ? JSON.stringify(query) : ''
    if (topics === this.#topics) return
    this.#topics = topics
    this.#leave?.abort()
    this.#leave = undefined
    if (topics === '' || !query) {
      this.#options.onState('off')
      return
    }
    const leave = new AbortController()
    this.#leave = leave
    void this.#follow(query, leave.signal)
  }

  async #follow(query: Query, signal: AbortSignal): Promise<void> {
    const { open, onState, againMs = 1000, silentMs = 40_000 } = this.#options
    for (let failures = 0; !signal.aborted; failures++) {
      onState(failures === 0 ? 'connecting' : 'away')
      try {
        const events = eventsOf(await open(query, signal), silentMs)
        if (signal.aborted) return
        onState('live')
        for await (const event of events) {
          failures = 0
          for (const { topics, on } of this.#listeners) if (isFor(topics, event)) on(event)
        }
      } catch {
        // It is tried again, and the state says so.
      }
      if (signal.aborted) return
      onState('away')
      await pause(againMs * 2 ** Math.min(failures, 4), signal)
    }
  }
}

/** All that somebody wants, as `/live` takes it. Undefined: nobody wants anything. */
export function queryOf(all: readonly Topics[]): Query | undefined {
  const of = (name: 'run' | 'scatter' | 'logs'): string[] =>
    [...new Set(all.flatMap((topics) => topics[name] ?? []))].sort()
  const query = {
    ...(all.some(({ runs }) => runs) ? { runs: true } : {}),
    ...(all.some(({ gates }) => gates) ? { gates: true } : {}),
    ...(all.some(({ facts }) => facts) ? { facts: true } : {}),
    ...(of('run').length > 0 ? { run: of('run') } : {}),
    ...(of('scatter').length > 0 ? { scatter: of('scatter') } : {}),
    ...(of('logs').length > 0 ? { logs: of('logs') } : {}),
  }
  return Object.keys(query).length === 0 ? undefined : query
}

/** Whether it is what these topics ask for. */
export function isFor(topics: Topics, { event, data }: StreamEvent): boolean {
  if (event === 'runs') return topics.runs === true
  if (event === 'gates') return topics.gates === true
  if (event === 'facts') return topics.facts === true
  if (event === 'logs') return topics.logs?.includes((data as { readonly run: string }).run) === true
  const about = data as { readonly id?: string; readonly run?: { readonly id: string } }
  if (event === 'run') return topics.run?.includes(about.run?.id ?? '') === true
  return topics.scatter?.includes(about.id ?? '') === true
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}
