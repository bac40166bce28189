/**
 * What stands on the log of schedules and sensors. As schemas.ts says: to change one, raise its
 * version.
 */
import { z } from 'zod'
import { by } from './by.ts'

const TOKEN_MAX = 256
const token = z.string().min(1).max(TOKEN_MAX)
const count = z.int().min(0)
const timeMs = z.int()

/**
 * `gap`: what becomes of a time on the wall that does not exist. `overlap`: of one that exists
 * twice.
 */
export const cronTiming = z.object({
  cron: z.string().max(TOKEN_MAX),
  timeZone: z.string().max(TOKEN_MAX),
  dst: z.object({ gap: z.enum(['after', 'skip']), overlap: z.enum(['first', 'both']) }),
})
export type CronTiming = z.infer<typeof cronTiming>
export const scheduleTiming = z.union([cronTiming, z.object({ everyMs: z.int().min(1), anchorMs: timeMs })])
export type ScheduleTiming = z.infer<typeof scheduleTiming>

export const overlapPolicy = z.enum(['skip', 'queue', 'cancel_running', 'allow'])
export const catchUpPolicy = z.union([z.enum(['none', 'last', 'all']), z.object({ withinMs: z.int().min(1) })])

/** `evaluates`: the internal asset whose code says what each run is asked for with. */
export const scheduleSpec = z.object({
  name: token,
  target: token,
  timing: scheduleTiming,
  overlap: overlapPolicy,
  catchUp: catchUpPolicy,
  jitterMs: count,
  evaluates: token.optional(),
})
export type ScheduleSpec = z.infer<typeof scheduleSpec>

export const sensorSpec = z.object({ name: token, target: token, everyMs: z.int().min(1), evaluates: token })
export type SensorSpec = z.infer<typeof sensorSpec>

/** What started a run of a schedule out of its turn. */
export const startedBy = z.enum(['trigger', 'backfill'])
export type StartedBy = z.infer<typeof startedBy>

/** Of a run of a schedule. `evaluates`: it only says what the run is asked for with. */
export const scheduledBy = z.object({
  name: token,
  occurrence: token,
  atMs: timeMs,
  by: startedBy.optional(),
  evaluates: z.boolean().optional(),
})
export type ScheduledBy = z.infer<typeof scheduledBy>

/** Of a run of a sensor. `evaluates`: it is an evaluation. */
export const sensedBy = z.object({ name: token, evaluation: count, evaluates: z.boolean().optional() })
export type SensedBy = z.infer<typeof sensedBy>

/** Occurrences from the first to the last. */
const occurrenceRange = z.object({ firstMs: timeMs, lastMs: timeMs, count: z.int().min(1) })

/**
 * The engine has looked at the clock, which showed `nowMs`: all occurrences after `fromMs` up to
 * `upToMs` are decided. `at`: those that a run is due for. `ends`: nothing more comes of this
 * timing.
 */
export const scheduleDue = z.object({
  fromMs: timeMs,
  upToMs: timeMs,
  nowMs: timeMs,
  skipped: occurrenceRange.optional(),
  missed: occurrenceRange.extend({ why: z.enum(['late', 'changed']) }).optional(),
  at: z.array(timeMs),
  ends: z.boolean().optional(),
})

/** A run was started for an occurrence. `atMs`: its nominal time. */
export const scheduleFired = z.object({ atMs: timeMs, run: token, by: startedBy.optional() })

/** Why no run was started for an occurrence that was due. */
export const skippedWhy = z.enum([
  'overlap',
  'queue_full',
  'superseded',
  'paused',
  'removed',
  'cancelled',
  'evaluation_failed',
  'refused',
])
export const scheduleSkipped = z.object({
  why: skippedWhy,
  atMs: timeMs,
  /** Of several: the last one, and how many. */
  lastMs: timeMs.optional(),
  count: z.int().min(1).optional(),
  by: startedBy.optional(),
  error: z.object({ code: z.string(), message: z.string() }).optional(),
})

/**
 * Occurrences that no engine was there for, and that `catchUp` did not take. `late`: by the policy.
 * `changed`: the schedule was changed or removed before an engine was there again.
 */
export const scheduleMissed = z.object({
  why: z.enum(['late', 'changed']),
  atMs: timeMs,
  lastMs: timeMs,
  count: z.int().min(1),
})

export const schedulePaused = z.object({ reason: z.string().max(2000).optional(), by: by.optional() })
export const scheduleResumed = z.object({ by: by.optional() })
/** Somebody wants a run now. */
export const scheduleTriggered = z.object({ by: by.optional() })
/** Somebody wants the runs of these occurrences. */
export const scheduleBackfillRequested = z.object({ at: z.array(timeMs), by: by.optional() })

export const sensorPaused = z.object({ reason: z.string().max(2000).optional(), by: by.optional() })
export const sensorResumed = z.object({ by: by.optional() })
/** Somebody wants it evaluated now. */
export const sensorTriggered = z.object({ by: by.optional() })
