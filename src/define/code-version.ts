/** What an asset's author says of its code beyond its graph. */
import type { z } from 'zod'
import { InvalidError } from '../../streams/errors.ts'
import { hash64 } from '../../streams/ids.ts'
import { payloadSchema } from './payload-schema.ts'

export const VERSION_MAX = 128

export function parseCodeVersion(at: string, version: unknown): string {
  const fits = typeof version === 'string' && version.length > 0 && version.length <= VERSION_MAX
  if (fits && version.isWellFormed()) return version
  throw new InvalidError(`${at}: codeVersion must be text of 1 to ${VERSION_MAX} characters, such as '2'`)
}

export function schemaHash(at: string, schema: z.ZodType): string {
  return hash64(JSON.stringify(payloadSchema(at, schema, 'payloadSchema'))).slice(0, 12)
}
