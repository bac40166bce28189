/** What a route of the API is: one line of the table from which all else is made. */
import { z } from 'zod'
import type { Flow } from '../../client/flow.ts'
import type { Logger } from '../../telemetry.ts'
import type { ApiKeyAction, KnownKey } from '../shared/api-keys.ts'

/** What of a flow the API needs: all that `connect()` returns has it. */
export type ApiFlow = Pick<
  Flow,
  | 'adopt'
  | 'as'
  | 'at'
  | 'audit'
  | 'events'
  | 'gates'
  | 'inspect'
  | 'limiter'
  | 'namespace'
  | 'partitions'
  | 'request'
  | 'retry'
  | 'run'
  | 'runs'
  | 'scatter'
  | 'schedules'
  | 'sensors'
  | 'shards'
  | 'triggers'
  | 'value'
  | 'why'
>

/** Who asks. Only who `seesAll` may see what is of no asset: limits, workers, the log. */
export type Caller = KnownKey

/** A request that may be answered. */
export interface Call<P = Readonly<Record<string, string>>, Q = unknown, B = unknown> {
  readonly flow: ApiFlow
  readonly caller: Caller
  readonly params: P
  readonly query: Q
  readonly body: B
  /** Of a read: how it was then, and not how it is. The flow is of that time. */
  readonly at: Date | undefined
  /** The header Idempotency-Key. */
  readonly idempotencyKey: string | undefined
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal
  readonly logger: Logger
  /** An answer of events. */
  readonly live: (topics: LiveTopics) => Response
}

/** What a client wants to hear of. */
export interface LiveTopics {
  readonly runs: boolean
  readonly gates: boolean
  readonly facts: boolean
  readonly run: readonly string[]
  readonly scatter: readonly string[]
  /** Runs whose code logs. */
  readonly logs: readonly string[]
}

/** What is sent for a schema of an answer: dates are texts, and what is undefined is left out. */
export type Sent<T> = unknown extends T
  ? unknown
  : T extends string
    ? T | Date
    : T extends readonly (infer Item)[]
      ? readonly Sent<Item>[]
      : T extends object
        ? { readonly [K in keyof T]: Sent<T[K]> }
        : T

type ParamsOf<Path extends string> = Path extends `${string}:${infer Name}/${infer Rest}`
  ? { readonly [K in Name]: string } & ParamsOf<`/${Rest}`>
  : Path extends `${string}:${infer Name}`
    ? { readonly [K in Name]: string }
    : unknown

export const TAGS = [
  'overview',
  'assets',
  'runs',
  'scatters',
  'gates',
  'limits',
  'schedules',
  'events',
  'workers',
  'log',
  'live',
] as const

interface RouteBase {
  readonly method: 'GET' | 'POST'
  readonly tag: (typeof TAGS)[number]
  /** What the key must be good for. */
  readonly scope: ApiKeyAction
  /** Only for keys of all assets. */
  readonly wide?: boolean
  readonly summary: string
  /** Of a read: how it was is not kept, so it is refused with `at`. */
  readonly now?: boolean
  /** Its answer is a stream of events, each of which meets the schema. */
  readonly stream?: boolean
  /** 200, or 202 for what is begun and goes on by itself. */
  readonly status?: 200 | 202
}

/** A route as the handler, the OpenAPI document, the docs and the tests see it. */
export interface Route extends RouteBase {
  readonly path: string
  readonly query: z.ZodObject
  readonly body: z.ZodType | undefined
  readonly answer: z.ZodType
  readonly handle: (call: Call) => Promise<unknown>
}

/** Every read takes it. */
const AT = {
  at: z.iso.datetime({ offset: true }).optional().describe('As it was at this time. Where that is not kept: 404.'),
} as const

export function route<Path extends string, Q extends z.ZodRawShape, A extends z.ZodType, B extends z.ZodType>(
  of: RouteBase & {
    readonly path: Path
    readonly query?: Q
    readonly body?: B
    readonly answer: A
    readonly handle: (call: Call<ParamsOf<Path>, z.output<z.ZodObject<Q>>, z.output<B>>) => Promise<Sent<z.output<A>>>
  },
): Route {
  const { query, body, handle, ...rest } = of
  return {
    ...rest,
    query: z.strictObject({ ...query, ...(of.method === 'GET' ? AT : {}) }),
    body,
    // What it gets was made by these schemas and this path.
    handle: handle as Route['handle'],
  }
}
