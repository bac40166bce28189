/** What stands on the log of hooks: which ones a pipeline has, and what a call is about. */
import { z } from 'zod'

const text = z.string().min(1).max(256)
const ms = z.number()

/** What a hook is called for. */
export const HOOKS = ['run_failed', 'run_finished', 'gate_opened', 'late'] as const
export type HookName = (typeof HOOKS)[number]

/** Which hooks a pipeline has: names, of which an older engine may not know all. */
export const hooksSpec = z.object({
  on: z.array(text),
  /** A run that is open so long after its request is late. */
  lateAfterMs: z.number().positive().optional(),
})
export type HooksSpec = z.infer<typeof hooksSpec>

/** Of a run that is a call of a hook: which one, and about which run and gate. */
export const hookOf = z.object({ on: text, run: text, gate: text.optional() })
export type HookOf = z.infer<typeof hookOf>

/** Appended by the server when a run has been open for the time after which it is late. */
export const runLate = z.object({ afterMs: z.number().positive() })

interface Thrown {
  readonly code: string
  readonly message: string
  readonly cause?: Thrown | undefined
  readonly errors?: readonly Thrown[] | undefined
}

const thrown: z.ZodType<Thrown> = z.lazy(() =>
  z.object({
    code: z.string(),
    message: z.string(),
    cause: thrown.optional(),
    errors: z.array(thrown).optional(),
  }),
)

/** What a hook is called with, as the call's input holds it. */
export const hookEvent = z.object({
  run: text,
  pipeline: text,
  target: text,
  partition: z.string().optional(),
  key: z.string().optional(),
  tags: z.record(z.string(), z.string()).optional(),
  requestedMs: ms,
  retryOf: z.string().optional(),
  parent: z.object({ run: text, asset: text }).optional(),
  schedule: text.optional(),
  sensor: text.optional(),
  subscription: text.optional(),
  finished: z
    .object({
      status: z.enum(['succeeded', 'failed', 'cancelled']),
      finishedMs: ms,
      asset: text.optional(),
      error: thrown.optional(),
    })
    .optional(),
  late: z
    .object({
      status: z.enum(['queued', 'requested', 'running']),
      afterMs: ms,
      /** Assets that have no end yet, the first few. */
      open: z.array(text),
    })
    .optional(),
  gate: z
    .object({
      id: text,
      asset: text,
      index: z.int().min(0).optional(),
      kind: z.enum(['signal', 'approval']),
      openedMs: ms,
      deadlineMs: ms.optional(),
      metadata: z.unknown().optional(),
      /** The secret that signed its token. */
      keyId: text,
    })
    .optional(),
})
export type HookEventData = z.infer<typeof hookEvent>
