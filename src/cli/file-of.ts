/** Files that options name. */
import { readFileSync } from 'node:fs'
import { InvalidError, messageOf } from '../../streams/errors.ts'

/** Its text; `-` is standard input. Throws InvalidError that names the option. */
export function fileOf(option: string, file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8')
  } catch (cause) {
    throw new InvalidError(`${option}: ${messageOf(cause)}`, { cause })
  }
}
