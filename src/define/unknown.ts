import { InvalidError } from '../../streams/errors.ts'
import { nearest } from '../../streams/nearest.ts'

/** Throws InvalidError for an option that there is not, naming the nearest one there is. */
export function refuseUnknown(at: string, options: object, allowed: readonly string[]): void {
  for (const key of Object.keys(options)) {
    if (!allowed.includes(key))
      throw new InvalidError(
        `${at}: there is no option ${key}${nearest(key, allowed)}; allowed are ${allowed.join(', ')}`,
      )
  }
}
