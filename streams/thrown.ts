/**
 * What is kept of anything thrown: code, message, stack, and what caused it; bounded, whatever the
 * thing is.
 */
import { isErrorLike, messageOf } from './errors.ts'
import type { ErrorInfo } from './schemas.ts'
import { cut } from './text.ts'

export const MESSAGE_MAX = 4000
export const STACK_MAX = 4000
const CODE_MAX = 100
/** Of a cause: it has its message twice on the log, in an attempt's end and in its asset's. */
const CAUSE_MESSAGE_MAX = 1000
export const CAUSE_LEVELS = 5
export const CAUSES_MAX = 12
const ERRORS_MAX = 5
const SHOWN_MAX = 2000

/** As it is shown to callers: what happened, and why, without stacks. */
export interface ErrorView {
  readonly code: string
  readonly message: string
  readonly cause?: ErrorView | undefined
  readonly errors?: readonly ErrorView[] | undefined
}

/** Never throws, and never gives more than some 20 KB. */
export function infoOf(thrown: unknown): ErrorInfo {
  const stack = isLike(thrown) ? read(thrown, 'stack') : undefined
  return {
    code: codeOf(thrown),
    message: cut(messageOf(thrown), MESSAGE_MAX),
    ...(typeof stack === 'string' ? { stack: cut(stack, STACK_MAX) } : {}),
    ...causesOf(thrown, { seen: new Set([thrown]), left: CAUSES_MAX }, 1),
  }
}

function causesOf(
  thrown: unknown,
  among: { readonly seen: Set<unknown>; left: number },
  level: number,
): Pick<ErrorInfo, 'cause' | 'errors'> {
  if (!isLike(thrown) || level > CAUSE_LEVELS) return {}
  const take = (inner: unknown): ErrorInfo[] => {
    if (inner === undefined || inner === null || among.seen.has(inner) || among.left <= 0) return []
    among.seen.add(inner)
    among.left -= 1
    const message = cut(messageOf(inner), CAUSE_MESSAGE_MAX)
    return [{ code: codeOf(inner), message, ...causesOf(inner, among, level + 1) }]
  }
  const [cause] = take(read(thrown, 'cause'))
  const errors = listOf(read(thrown, 'errors')).flatMap(take)
  return { ...(cause ? { cause } : {}), ...(errors.length > 0 ? { errors } : {}) }
}

function listOf(errors: unknown): unknown[] {
  try {
    // By index: its methods may be anybody's.
    return Array.isArray(errors) ? Array.from({ length: Math.min(errors.length, ERRORS_MAX) }, (_, i) => errors[i]) : []
  } catch {
    return []
  }
}

function codeOf(thrown: unknown): string {
  if (!isLike(thrown)) return 'thrown_non_error'
  const code = read(thrown, 'code')
  return typeof code === 'string' && code.length > 0 && code.length < CODE_MAX ? code.toWellFormed() : 'error'
}

function isLike(thrown: unknown): thrown is object {
  try {
    return isErrorLike(thrown)
  } catch {
    return false
  }
}

/** A property of anything, also of what throws when it is asked. */
export function read(thrown: unknown, name: string): unknown {
  try {
    return typeof thrown === 'object' && thrown !== null ? Reflect.get(thrown, name) : undefined
  } catch {
    return undefined
  }
}

/**
 * The message, and those of its causes: `fetch failed (cause: ECONNREFUSED: connect ECONNREFUSED
 * 127.0.0.1:9)`.
 */
export function describe({ message, cause, errors }: ErrorView): string {
  const causes = [...(cause ? [cause] : []), ...(errors ?? [])].map(describeCause)
  return causes.length === 0 ? message : cut(`${message} (cause: ${causes.join('; ')})`, SHOWN_MAX, '…')
}

function describeCause(cause: ErrorView): string {
  const text = describe(cause)
  return cause.code === 'error' || cause.code === 'thrown_non_error' || text.includes(cause.code)
    ? text
    : `${cause.code}: ${text}`
}

/** The message of anything thrown, and those of its causes. */
export function reasonOf(thrown: unknown): string {
  return describe(infoOf(thrown))
}

/** Without stacks. */
export function viewOfError({ code, message, cause, errors }: ErrorInfo): ErrorView {
  return {
    code,
    message,
    ...(cause ? { cause: viewOfError(cause) } : {}),
    ...(errors ? { errors: errors.map(viewOfError) } : {}),
  }
}

/** An Error again, for `error.cause`. */
export function causeFrom({ cause, errors }: Pick<ErrorView, 'cause' | 'errors'>): Error | undefined {
  if (cause) return errorFrom(cause)
  return errors ? new AggregateError(errors.map(errorFrom), 'several errors') : undefined
}

function errorFrom(view: ErrorView): Error {
  const cause = causeFrom(view)
  const error = view.errors
    ? new AggregateError(view.errors.map(errorFrom), view.message)
    : new Error(view.message, cause ? { cause } : {})
  return Object.assign(error, { code: view.code })
}
