/** What the table of facts says of each: see facts.ts. */
import type { z } from 'zod'
import type { Format } from './codec.ts'

/** Raises the body of one version by one. */
type Upcaster = (body: Record<string, unknown>) => Record<string, unknown>

export interface FactDefinition {
  readonly path: string
  readonly format: Format
  readonly version: number
  readonly schema: z.ZodType
  /** What the schema gives, quicker, for a body as it mostly is; undefined for any other. */
  readonly quick?: (body: Readonly<Record<string, unknown>>) => unknown
  /** `upcasters[v]` turns a body of version v into one of version v + 1. */
  readonly upcasters?: Readonly<Record<number, Upcaster>>
}
