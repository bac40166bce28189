/** Has the form of the package pino, which is not installed here. */
import type { PinoLogger } from '../../../src/index.ts'

export function pino(_options: { readonly level: string }): PinoLogger {
  const write = (fields: object, message = ''): void =>
    console.log(JSON.stringify({ ...fields, msg: message }))
  return {
    bindings: () => ({}),
    isLevelEnabled: () => true,
    debug: write,
    info: write,
    warn: write,
    error: write,
  }
}
