import { nearest } from '../../streams/did-you-mean.ts'
import { InvalidError } from '../../streams/errors.ts'

/**
 * The names of all options of a type. One that is added to the type and not here does not compile.
 */
export type OptionNames<T> = { readonly [Name in keyof T]-?: true }

/**
 * Throws InvalidError for an option that there is not, naming the nearest one there is; and for
 * what is no object of options.
 */
export function refuseUnknown(
  at: string,
  options: object,
  allowed: readonly string[] | Readonly<Record<string, true>>,
): void {
  const given: unknown = options
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw new InvalidError(
      `${at}: options must be an object, got ${Array.isArray(given) ? 'a list' : given === null ? 'null' : typeof given}`,
    )
  // Its members are no own ones, so they would all be left out.
  const kind = given instanceof Promise ? 'a promise: await it' : given instanceof Map ? 'a Map' : undefined
  if (kind !== undefined) throw new InvalidError(`${at}: options must be an object, got ${kind}`)
  const names = isList(allowed) ? allowed : Object.keys(allowed)
  for (const key of Object.keys(options)) {
    if (names.includes(key)) continue
    const near = nearest(key, names)
    const all = near.includes('did you mean')
      ? `${near}; allowed are ${names.join(', ')}`
      : `; allowed are ${names.join(', ')}`
    throw new InvalidError(`${at}: there is no option ${key}${all}`)
  }
}

function isList(allowed: readonly string[] | Readonly<Record<string, true>>): allowed is readonly string[] {
  return Array.isArray(allowed)
}
