/** What a request says: its query, its body, the ids in its path. */
import type { z } from 'zod'
import { nearest } from '../../../streams/did-you-mean.ts'
import { InvalidError } from '../../../streams/errors.ts'
import { parseBarrierId, parseGateId, parseRunId } from '../../../streams/ids.ts'
import { cut } from '../../../streams/text.ts'
import { type BodyLimits, bodyKind, parseBody, readBody } from '../shared/body.ts'
import type { BodyRoom } from '../shared/budget.ts'
import { HttpProblem, type ProblemReason } from '../shared/problem.ts'

const DETAIL_MAX = 500

/** Throws the problem `invalid_query`, which names the parameter. */
export function parseQuery(schema: z.ZodObject, search: URLSearchParams): Readonly<Record<string, unknown>> {
  const given: Record<string, unknown> = {}
  for (const key of new Set(search.keys())) {
    const all = search.getAll(key)
    given[key] = all.length === 1 ? all[0] : all
  }
  const parsed = schema.safeParse(given)
  if (parsed.success) return parsed.data
  throw problemOf('invalid_query', 'query parameter', parsed.error, Object.keys(schema.shape))
}

/** Throws the problem `invalid_input`, which names the place in the body. */
export function checkBody(schema: z.ZodType, body: unknown): unknown {
  const parsed = schema.safeParse(body ?? {})
  if (parsed.success) return parsed.data
  throw problemOf('invalid_input', 'field', parsed.error, 'shape' in schema ? Object.keys(schema.shape ?? {}) : [])
}

function problemOf(reason: ProblemReason, what: string, { issues }: z.ZodError, known: readonly string[]): HttpProblem {
  const [issue] = issues
  if (issue?.code === 'unrecognized_keys') {
    const [key = ''] = issue.keys
    const hint = known.length === 0 ? '; there are none' : nearest(key, known)
    return new HttpProblem(
      reason,
      cut(`There is no ${what} ${key}${hint}${hint.endsWith('?') ? '' : '.'}`, DETAIL_MAX, '…'),
      {},
      key,
    )
  }
  const field = issue?.path.join('.') ?? ''
  return new HttpProblem(reason, cut(`${what} ${field}: ${issue?.message ?? 'not valid'}`, DETAIL_MAX, '…'), {}, field)
}

export function badCursor(): HttpProblem {
  return new HttpProblem('invalid_query', 'cursor must be `next` of the page before.', {}, 'cursor')
}

/** A sequence, or an index; 0 without one. */
export function numberIn(cursor: string | undefined): number {
  const number = Number(cursor ?? 0)
  if (Number.isSafeInteger(number) && number >= 0) return number
  throw badCursor()
}

const IDS: Readonly<Record<string, (id: string) => unknown>> = {
  run: parseRunId,
  scatter: parseBarrierId,
  gate: parseGateId,
}

/** Of what is no id, there is nothing. */
export function checkIds(params: Readonly<Record<string, string>>): void {
  for (const [name, id] of Object.entries(params)) {
    try {
      IDS[name]?.(id)
    } catch (error) {
      if (error instanceof InvalidError) throw new HttpProblem(name === 'run' ? 'unknown_run' : 'unknown_id')
      throw error
    }
  }
}

/** JSON, or nothing. A form that another site has a browser send is neither. */
export async function receiveBody(request: Request, limits: BodyLimits, room: BodyRoom): Promise<unknown> {
  const kind = bodyKind(request.headers, limits)
  if (kind !== 'json' && kind !== 'empty')
    throw new HttpProblem('unsupported_media_type', 'Send JSON, or no body.', { 'Accept-Post': 'application/json' })
  const bytes = await readBody(request, limits, room)
  const isEmpty = kind === 'json' && bytes.length === 0
  const type = request.headers.get('content-type') ?? ''
  const { value } = await parseBody(isEmpty ? 'empty' : kind, bytes, type)
  return value
}
