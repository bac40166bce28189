/** All routes of the API, in the order in which its documents have them. */
import type { Route } from './route.ts'
import { EVENT_ACTS, GATE_ACTS, LIMIT_ACTS, SCATTER_ACTS, SCHEDULE_ACTS } from './routes/acts.ts'
import { ASSETS } from './routes/assets.ts'
import { AUDIT } from './routes/audit.ts'
import { EVENTS } from './routes/events.ts'
import { GATES } from './routes/gates.ts'
import { LIMITS } from './routes/limits.ts'
import { LIVE } from './routes/live.ts'
import { LOG } from './routes/log.ts'
import { OVERVIEW } from './routes/overview.ts'
import { RUN_ACTS } from './routes/run-acts.ts'
import { RUNS } from './routes/runs.ts'
import { SCATTERS } from './routes/scatters.ts'
import { SCHEDULES } from './routes/schedules.ts'
import { WHY } from './routes/why.ts'
import { WORKERS } from './routes/workers.ts'

export const BASE = '/api/v1'

export const ROUTES: readonly Route[] = [
  ...OVERVIEW,
  ...WHY,
  ...ASSETS,
  ...RUNS,
  ...RUN_ACTS,
  ...SCATTERS,
  ...SCATTER_ACTS,
  ...GATES,
  ...GATE_ACTS,
  ...LIMITS,
  ...LIMIT_ACTS,
  ...SCHEDULES,
  ...SCHEDULE_ACTS,
  ...EVENTS,
  ...EVENT_ACTS,
  ...WORKERS,
  ...LOG,
  ...AUDIT,
  ...LIVE,
]
