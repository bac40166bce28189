/**
 * A scatter of a million instances that nobody runs: the console with an API that makes it up. It
 * shows how quick the page is. What the API really says is tested elsewhere.
 */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import { changedStates, countStates, encodeStates } from '../../projections/scatter/map.ts'
import { LARGE_TILE } from '../../src/console/scatter/cells.ts'
import { consoleHandler } from '../../src/http/console.ts'

export const RUN = '0-01KB4R7M00000000000000'
const ID = `${RUN}.pages`
const EVERY_MS = 250
const [WAITING, RUNNING, DONE, FAILED, RETRYING, GATE] = [0, 1, 2, 3, 4, 5] as const

export interface WideOptions {
  readonly size?: number
  /** Instances that change in each event. */
  readonly changes?: number
  /** How long the status takes to come. */
  readonly statusMs?: number
}

export interface WideScatter extends AsyncDisposable {
  readonly url: string
  /** Events sent so far. */
  readonly sent: () => number
  readonly posted: readonly string[]
}

export async function openWideScatter(options: WideOptions = {}): Promise<WideScatter> {
  const { size = 1_000_000, changes = 3000, statusMs = 0 } = options
  const files = await consoleHandler()
  const world = new World(size)
  const posted: string[] = []
  let sent = 0
  const live = (signal: AbortSignal): Response => {
    const encoder = new TextEncoder()
    const body = new ReadableStream<Uint8Array>({
      start: (stream) => {
        const send = (event: string, data: unknown): void => {
          sent += 1
          stream.enqueue(encoder.encode(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`))
        }
        send('map', { ...world.about(), from: 0, ...coded(world.states) })
        const timer = globalThis.setInterval(() => {
          const before = world.states.slice()
          world.move(changes)
          const change = changedStates(before, world.states)
          if (change) send('ranges', { ...world.about(), from: change.from, ...coded(change.states) })
        }, EVERY_MS)
        signal.addEventListener('abort', () => {
          clearInterval(timer)
          stream.close()
        })
      },
    })
    return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } })
  }
  const answer = async (request: Request): Promise<Response> => {
    const { pathname, searchParams } = new URL(request.url)
    if (!pathname.startsWith('/api/v1/')) return files(request)
    const path = pathname.slice('/api/v1'.length)
    if (request.method === 'POST') {
      posted.push(path)
      return Response.json({ ok: true })
    }
    if (path === '/live') return live(request.signal)
    if (path === `/scatters/${ID}`) await setTimeout(statusMs)
    const found = world.answer(path, searchParams)
    return found === undefined
      ? Response.json({ status: 404, reason: 'unknown_id', detail: 'There is nothing.' }, { status: 404 })
      : Response.json(found)
  }
  const server = createServer(getRequestListener(answer))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  // Just listening on a port.
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    sent: () => sent,
    posted,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

function coded(states: Uint8Array) {
  return { length: states.length, runs: Buffer.from(encodeStates(states)).toString('base64') }
}

/** Most is done, some bands have failed, and one runs. */
class World {
  readonly states: Uint8Array
  #next: number
  #seed = 7

  constructor(size: number) {
    this.states = new Uint8Array(size)
    this.#next = Math.floor(size * 0.75)
    for (let i = 0; i < this.#next; i++) this.states[i] = this.#first(i / size)
  }

  #random(): number {
    this.#seed = (this.#seed * 1_103_515_245 + 12_345) % 2_147_483_648
    return this.#seed / 2_147_483_648
  }

  #first(at: number): number {
    const one = this.#random()
    const isBand = Math.floor(at * 2000) % 570 === 190
    if (isBand) return one < 0.6 ? FAILED : DONE
    if (Math.floor(at * 1000) % 190 === 150) return one < 0.4 ? GATE : DONE
    if (at > 0.72) return one < 0.05 ? RETRYING : one < 0.3 ? RUNNING : DONE
    return one < 0.002 ? FAILED : DONE
  }

  move(changes: number): void {
    const { states } = this
    for (let i = 0; i < changes; i++) {
      const at = Math.floor(this.#random() * states.length)
      const state = states[at]
      if (state === RUNNING || state === RETRYING) states[at] = this.#random() < 0.02 ? FAILED : DONE
      else if (state === WAITING) states[at] = RUNNING
    }
  }

  about() {
    const { length } = this.states
    return { id: ID, status: 'open', total: length, stored: length, counts: countStates(this.states) }
  }

  answer(path: string, query: URLSearchParams): unknown {
    const now = new Date()
    if (path === '/me')
      return { namespace: 'production', shards: 1, key: 'ana', may: ['read', 'operate'], allAssets: true, now }
    if (path === '/home')
      return {
        runs: { open: 1, more: false, shown: [] },
        scatters: [],
        gates: { waiting: 0, more: false, shown: [] },
        failed: [],
        due: [],
        problems: [],
      }
    if (path === `/scatters/${ID}`) return this.#status(now.getTime())
    if (path === `/scatters/${ID}/errors`) return { errors: this.#errors(), complete: true }
    if (path === `/scatters/${ID}/map`) {
      const from = Number(query.get('from') ?? 0)
      const states = this.states.subarray(from, Number(query.get('to') ?? this.states.length))
      return { ...this.about(), from, ...coded(states), counts: countStates(states) }
    }
    if (path === `/scatters/${ID}/tiles`) return { id: ID, tiles: this.#tiles() }
    const instance = path.match(/\/instances\/(\d+)$/)?.[1]
    return instance === undefined ? undefined : this.#instance(Number(instance), now)
  }

  #tiles() {
    const { states } = this
    return Array.from({ length: Math.ceil(states.length / LARGE_TILE) }, (_, tile) => {
      const from = tile * LARGE_TILE
      const to = Math.min(states.length, from + LARGE_TILE)
      return { from, to, counts: countStates(states, from, to) }
    })
  }

  #status(now: number) {
    const { states } = this
    const [waiting = 0, running = 0, succeeded = 0, failed = 0, retrying = 0, gates = 0] = countStates(states)
    const total = states.length
    return {
      id: ID,
      status: 'open',
      total,
      stored: total,
      succeeded,
      failed,
      timedOut: 0,
      pending: total - succeeded - failed,
      leased: running,
      running,
      suspended: gates,
      waitingForRetry: retrying,
      waiting,
      cancelled: 0,
      resultsStored: succeeded,
      redrivable: 0,
      progress: 75,
      perSecond: 219,
      estimatedEnd: new Date(now + ((waiting + running + retrying) / 219) * 1000),
      failuresLeft: Math.max(0, total * 0.02 - failed),
      startedAt: new Date(now - 3_000_000),
      longest: [],
      waitingFor: [
        `its rate limit: 220 in 1000 ms, bucket shop-api; the next turn is at ${new Date(now).toISOString()}; ${running} leased instances wait their turn`,
        `room: ${waiting} instances are fed to workers as others end`,
        `a signal, or a run: ${gates} instances wait`,
        `a retry delay: ${retrying} instances, the next in 4200 ms`,
      ],
    }
  }

  #errors() {
    const failed: number[] = []
    for (let i = 0; i < this.states.length; i++) if (this.states[i] === FAILED) failed.push(i)
    const names = [
      ['http_403', '403 Forbidden: blocked by the shop'],
      ['timeout', 'no answer within 30 s'],
      ['parse_failed', 'price is not a number: "on request"'],
    ] as const
    const isBand = (i: number): boolean => Math.floor((i / this.states.length) * 2000) % 570 === 190
    return names
      .map(([code, message], k) => {
        const own = failed.filter((i) => (isBand(i) ? k === 0 : k === 1 + (i % 2)))
        const spread = new Array<number>(100).fill(0)
        for (const i of own) {
          const at = Math.floor((i / this.states.length) * 100)
          spread[at] = (spread[at] ?? 0) + 1
        }
        return { code, message, count: own.length, instances: own, spread }
      })
      .filter(({ count }) => count > 0)
      .toSorted((a, b) => b.count - a.count)
  }

  #instance(index: number, at: Date) {
    const error = { code: 'http_403', message: '403 Forbidden: blocked by the shop' }
    const isFailed = this.states[index] === FAILED
    const attempt = { attempt: 1, outcome: isFailed ? 'error' : 'done', at, durationMs: 3400, worker: 'w-08' }
    return {
      scatter: ID,
      index,
      key: { shop: `shop-${Math.floor(index / 2500)}`, page: index % 2500 },
      state: isFailed ? 'failed' : 'done',
      attempts: [isFailed ? { ...attempt, error } : attempt],
      complete: true,
    }
  }
}
