/** Requests to the API, and what it means when they are refused. */

export const BASE = '/api/v1'
/** The API answers reads within ten seconds. */
const PATIENCE_MS = 20_000

export type Query = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>

/** What a page reads. `T` is what comes of it. */
export interface Read<T> {
  readonly path: string
  readonly query?: Query
  /** How it was is not kept: it is not asked in the past. */
  readonly now?: boolean
  /** Only for the compiler. */
  readonly answer?: T
}

/** Why there was no answer: problem details of the API, or `offline` where nothing came. */
export class Problem extends Error {
  readonly status: number
  readonly reason: string
  readonly field: string | undefined

  constructor(status: number, reason: string, detail: string, field?: string) {
    super(detail)
    this.status = status
    this.reason = reason
    this.field = field
  }
}

export interface ClientOptions {
  /** Where the API is. Default: where the page came from. */
  readonly origin?: string
  readonly key: () => string | undefined
  readonly fetch?: typeof fetch
  /** The key is no longer good. */
  readonly onRefused?: () => void
}

export class Client {
  readonly #options: ClientOptions

  constructor(options: ClientOptions) {
    this.#options = options
  }

  async get<T>({ path, query }: Read<T>, { at, signal }: { at?: Date; signal?: AbortSignal } = {}): Promise<T> {
    const all = { ...query, ...(at ? { at: at.toISOString() } : {}) }
    const response = await this.#send(addressOf(path, all), { ...(signal ? { signal } : {}) })
    return (await response.json()) as T
  }

  /** `key`: of its repeats at most one does something. */
  async post<T>(path: string, body?: unknown, { key }: { key?: string } = {}): Promise<T> {
    const headers = {
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
      ...(key === undefined ? {} : { 'Idempotency-Key': key }),
    }
    const sent = body === undefined ? {} : { body: JSON.stringify(body) }
    const response = await this.#send(path, { method: 'POST', headers, ...sent })
    return (await response.json()) as T
  }

  /** The body of `/live`. It ends by the signal alone. */
  async stream(query: Query, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const response = await this.#send(addressOf('/live', query), { signal }, false)
    if (!response.body) throw new Problem(response.status, 'offline', 'The browser reads no streams.')
    return response.body
  }

  async #send(address: string, init: RequestInit, isShort = true): Promise<Response> {
    const key = this.#options.key()
    const signals = [...(init.signal ? [init.signal] : []), ...(isShort ? [AbortSignal.timeout(PATIENCE_MS)] : [])]
    let response: Response
    try {
      const ask = this.#options.fetch ?? fetch
      response = await ask(`${this.#options.origin ?? ''}${BASE}${address}`, {
        ...init,
        ...(signals.length > 0 ? { signal: AbortSignal.any(signals) } : {}),
        headers: { ...init.headers, ...(key === undefined ? {} : { Authorization: `Bearer ${key}` }) },
        // Cookies of the host are none of its business.
        credentials: 'omit',
        cache: 'no-store',
      })
    } catch (error) {
      if (init.signal?.aborted) throw error
      throw new Problem(0, 'offline', 'No answer.')
    }
    if (response.ok) return response
    const problem = await problemOf(response)
    if (problem.status === 401) this.#options.onRefused?.()
    throw problem
  }
}

async function problemOf(response: Response): Promise<Problem> {
  const body: unknown = await response.json().catch(() => undefined)
  const text = (name: string): string | undefined => {
    const value = typeof body === 'object' && body !== null ? (body as Record<string, unknown>)[name] : undefined
    return typeof value === 'string' ? value : undefined
  }
  // A proxy answers in words of its own.
  const detail = text('detail') ?? `The server answered ${response.status}.`
  return new Problem(response.status, text('reason') ?? 'internal', detail, text('field'))
}

export function addressOf(path: string, query: Query = {}): string {
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined) continue
    for (const one of Array.isArray(value) ? value : [value]) search.append(name, String(one))
  }
  return search.size === 0 ? path : `${path}?${search}`
}

/** Parts of a path, such as ids: whatever they hold, they stay one part. */
export function pathOf(strings: TemplateStringsArray, ...parts: readonly (string | number)[]): string {
  return strings.reduce((path, text, i) => `${path}${encodeURIComponent(String(parts[i - 1] ?? ''))}${text}`)
}
