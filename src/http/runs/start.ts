/** The body of a request that starts a run. */
import { InvalidError } from '../../../streams/errors.ts'
import type { RunOptions } from '../../define/run-options.ts'
import { refuseUnknown } from '../../options/unknown.ts'
import { bodyKind, parseBody, readBody } from '../shared/body.ts'
import type { BodyRoom } from '../shared/budget.ts'
import { idempotencyKeyOf, type Limits } from '../shared/limits.ts'
import { HttpProblem } from '../shared/problem.ts'
import { reasonIn } from './over-http.ts'

const FIELDS = ['input', 'partition', 'tags', 'upstream', 'timeout'] as const satisfies readonly (keyof RunOptions)[]

/**
 * What a run is asked for with. The idempotency key is one of this API key's id: two clients never
 * meet.
 */
export async function receiveStart(request: Request, limits: Limits, room: BodyRoom, id: string): Promise<RunOptions> {
  const kind = bodyKind(request.headers, limits)
  if (kind !== 'json' && kind !== 'empty')
    throw new HttpProblem('unsupported_media_type', 'Send JSON, or no body.', { 'Accept-Post': 'application/json' })
  const idempotencyKey = idempotencyKeyOf(request.headers)
  const bytes = await readBody(request, limits, room)
  // Many clients name a type, and send nothing of it.
  const isEmpty = kind === 'json' && bytes.length === 0
  const { value } = await parseBody(isEmpty ? 'empty' : kind, bytes, request.headers.get('content-type') ?? '')
  const key = idempotencyKey === undefined ? {} : { key: `http:${id}:${idempotencyKey}` }
  return { ...optionsIn(value), ...key }
}

/** Only its names are looked at here: the request of the run checks what they hold. */
function optionsIn(value: unknown): RunOptions {
  if (value === null) return {}
  if (!isOptions(value)) throw new HttpProblem('invalid_input', 'The body must be an object such as { "input": … }.')
  try {
    refuseUnknown('body', value, FIELDS)
  } catch (error) {
    throw error instanceof InvalidError ? new HttpProblem('invalid_input', reasonIn(error)) : error
  }
  // null, for clients that always send all fields.
  return Object.fromEntries(Object.entries(value).filter(([, given]) => given !== null))
}

function isOptions(value: unknown): value is RunOptions {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
