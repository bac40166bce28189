/** The documents of schedules and sensors. */
import type { RunId } from '../../streams/ids.ts'
import type { ScheduleSpec, ScheduleTiming, SensorSpec, StartedBy } from '../../streams/schedule-schemas.ts'
import type { ErrorInfo, ValueAt } from '../../streams/schemas.ts'

/** Between these times, the first one not included, the schedule was paused. */
export interface Pause {
  fromMs: number
  /** None: it goes on. */
  toMs?: number
}

/** While a schedule had one timing. */
export interface Era {
  timing: ScheduleTiming
  /** All occurrences up to here are decided. */
  fromMs: number
  /** Nothing after this is of this timing any more. */
  toMs?: number
  pauses: Pause[]
}

/** An occurrence, by its own name: its nominal time, and who asked for it out of its turn. */
export interface Occurrence {
  id: string
  atMs: number
  by?: StartedBy
}

export interface OpenOccurrence {
  atMs: number
  run: RunId
  by?: StartedBy
  /** The run that says what it is asked for with, until that has ended. */
  evaluation?: RunId
  cancelling?: true
}

export interface RecentOccurrence {
  what: 'fired' | 'skipped' | 'missed'
  atMs: number
  lastMs?: number | undefined
  count?: number | undefined
  run?: string
  why?: string
  by?: StartedBy | undefined
  error?: { code: string; message: string } | undefined
}

/** See schedule/schedule.ts. */
export interface ScheduleState {
  seq: number
  pipeline: string
  name: string
  /** Of the pipeline, with which runs are started. */
  version: string
  spec: ScheduleSpec
  /** The newest version of the pipeline has it no more. */
  removed?: true
  /** How often what is due has changed: a fact of an older step means nothing. */
  step: number
  /** What is undecided, oldest first. Only the last one may go on. */
  eras: Era[]
  paused?: { sinceMs: number; reason?: string }
  open: Record<string, OpenOccurrence>
  queue: Occurrence[]
  counts: { fired: number; skipped: number; missed: number }
  /** The newest first. */
  recent: RecentOccurrence[]
}

/** See schedule/sensor.ts. */
export interface SensorState {
  seq: number
  pipeline: string
  name: string
  version: string
  spec: SensorSpec
  removed?: true
  paused?: { sinceMs: number; reason?: string }
  /** Somebody wants it evaluated now. */
  asked?: true
  /** How many were begun. */
  evaluations: number
  evaluating?: { run: RunId; sinceMs: number }
  lastMs?: number
  /** What the last evaluation brought that went well: it has the cursor. */
  value?: ValueAt
  valueMs?: number
  /** In a row. */
  failures: number
  error?: ErrorInfo
}
