/** The API of a namespace in which there is something of each kind. */
import { expect } from 'vitest'
import { z } from 'zod'
import type { Route } from '../../src/http/api/route.ts'
import { BASE, ROUTES } from '../../src/http/api/table.ts'
import { asset, input, type Pipeline, pipeline, schedule, sensor, subscription } from '../../src/index.ts'
import { type Answer, request } from './kit.ts'

const order = input('order', z.object({ id: z.string(), total: z.number() }))
const invoice = asset('invoice', {
  dependsOn: [order],
  execute: ({ log }, deps) => {
    log.info('writes an invoice', { of: deps.order.id })
    log.warn('no paper')
    return { of: deps.order.id, cents: 1200n }
  },
})
/** Four of its hundred instances fail, and one waits at a gate. */
const items = asset('items', {
  scatter: () => Array.from({ length: 100 }, (_, n) => `item-${n}`),
  scatterOptions: { failureMode: 'partial', failureThreshold: { count: 10 } },
  retry: { maxAttempts: 1 },
  execute: async (ctx) => {
    const n = Number(String(ctx.scatterKey).slice('item-'.length))
    if (n === 50) return await ctx.signalGate({ metadata: { of: n } })
    if (n % 30 === 7) throw new Error(`no stock of item ${n}`)
    return n
  },
})
const checked = asset('checked', {
  execute: (ctx) => ctx.approval({ message: 'Ship it?', timeout: '1h' }),
  onSignal: (_, decision) => decision,
})
const broken = asset('broken', {
  retry: { maxAttempts: 1 },
  execute: () => {
    throw new Error('no paper')
  },
})
const held = asset('held', {
  slots: { bucket: 'press', max: 1 },
  execute: async (ctx) => {
    await new Promise<void>((resolve) => ctx.signal.addEventListener('abort', () => resolve()))
  },
})
const report = asset('report', { execute: () => 'numbers' })
const nightly = schedule('nightly', { cron: '0 2 * * *', timeZone: 'UTC', run: report })
const files = sensor('files', { every: '1h', run: report, evaluate: () => ({ cursor: { n: 1 }, runs: [] }) })

/** What is wrong with messages, as long as it is. */
export const code = { isRepaired: false }
const repaired = { id: 'o-2', total: 1 }

/** Two versions of it: the second has one more asset. */
export function orders(stream: string, version: 1 | 2 = 1): Pipeline {
  const incoming = subscription('incoming', {
    from: { stream },
    run: invoice,
    input: (message) => ({ order: code.isRepaired ? repaired : message.json() }),
  })
  const assets = [order, invoice, items, checked, broken, held, report]
  const more = version === 1 ? [] : [asset('more', { execute: () => 1 })]
  return pipeline('orders', [...assets, ...more], {
    schedules: [nightly],
    sensors: [files],
    subscriptions: [incoming],
  })
}

export interface ApiCall {
  readonly params?: Readonly<Record<string, string | number>>
  readonly query?: Readonly<Record<string, string | readonly string[]>>
  readonly body?: unknown
  readonly key?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** Calls routes of the table, and remembers which ones. Good answers must meet their schemas. */
export class ApiClient {
  readonly called = new Set<string>()
  readonly url: string
  readonly #key: string

  constructor(url: string, key: string) {
    this.url = url
    this.#key = key
  }

  async get(path: string, call: ApiCall = {}): Promise<Answer> {
    return await this.#call('GET', path, call)
  }

  async post(path: string, call: ApiCall = {}): Promise<Answer> {
    return await this.#call('POST', path, call)
  }

  async #call(method: Route['method'], path: string, call: ApiCall): Promise<Answer> {
    const route = ROUTES.find((one) => one.method === method && one.path === path)
    if (!route) throw new Error(`the table has no ${method} ${path}`)
    const answer = await request(`${this.url}${BASE}${addressOf(path, call)}`, {
      method,
      headers: {
        Authorization: `Bearer ${call.key ?? this.#key}`,
        ...(call.body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...call.headers,
      },
      ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
    })
    if (answer.status >= 300) return answer
    this.called.add(`${method} ${path}`)
    expect(answer.status).toBe(route.status ?? 200)
    // What the schema does not say would be missing.
    expect(route.answer.parse(answer.body), `${method} ${path}`).toEqual(answer.body)
    return answer
  }
}

export interface LiveEvent {
  readonly id: string
  readonly event: string
  // As the schema of the route says.
  readonly data: Record<string, unknown> & { counts?: number[]; runs?: unknown; from?: number; length?: number }
}

/** Events of `/live`, each checked by the schema, until the caller has seen enough. */
export async function* liveEvents(
  api: ApiClient,
  key: string,
  query: string,
  last?: string,
): AsyncGenerator<LiveEvent> {
  const leave = new AbortController()
  const headers = { Authorization: `Bearer ${key}`, ...(last === undefined ? {} : { 'Last-Event-ID': last }) }
  const response = await fetch(`${api.url}${BASE}/live?${query}`, { headers, signal: leave.signal })
  expect(response.headers.get('content-type')).toBe('text/event-stream')
  const schema = ROUTES.find(({ path }) => path === '/live')?.answer
  api.called.add('GET /live')
  let text = ''
  try {
    for await (const bytes of response.body ?? []) {
      text += Buffer.from(bytes).toString('utf8')
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        const [, id = '', event = '', data = ''] =
          /^id: ([\d/.]+)\nevent: (\w+)\ndata: (.*)$/s.exec(text.slice(0, end)) ?? []
        text = text.slice(end + 2)
        if (event === '') continue
        const one = { event, data: JSON.parse(data) }
        expect(schema?.parse(one)).toEqual(one)
        yield { id, ...one }
      }
    }
  } finally {
    leave.abort()
  }
}

function addressOf(path: string, { params = {}, query = {} }: ApiCall): string {
  const search = new URLSearchParams(
    Object.entries(query).flatMap(([name, value]) =>
      (typeof value === 'string' ? [value] : value).map((one): [string, string] => [name, one]),
    ),
  )
  const address = path.replaceAll(/:(\w+)/g, (_, name: string) => encodeURIComponent(String(params[name])))
  return search.size === 0 ? address : `${address}?${search}`
}
