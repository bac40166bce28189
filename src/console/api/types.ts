/** Answers of the API, as its schemas say. Only types: nothing of the server is in the console. */
import type { z } from 'zod'
import type * as events from '../../http/api/event-schemas.ts'
import type { assetPage, assets, partitions, pipelines } from '../../http/api/routes/assets.ts'
import type { audit } from '../../http/api/routes/audit.ts'
import type { refused, subscriptions, triggers } from '../../http/api/routes/events.ts'
import type { gates } from '../../http/api/routes/gates.ts'
import type { limits } from '../../http/api/routes/limits.ts'
import type { log, rail } from '../../http/api/routes/log.ts'
import type { home, me } from '../../http/api/routes/overview.ts'
import type { history, input, logs, runPage, runs } from '../../http/api/routes/runs.ts'
import type { errors } from '../../http/api/routes/scatters.ts'
import type { occurrences, schedules, sensors } from '../../http/api/routes/schedules.ts'
import type { why } from '../../http/api/routes/why.ts'
import type { workers } from '../../http/api/routes/workers.ts'
import type * as s from '../../http/api/schemas.ts'

export type Me = z.output<typeof me>
export type Home = z.output<typeof home>
export type Run = z.output<typeof s.run>
export type RunExplained = z.output<typeof s.runExplained>
export type AssetInRun = RunExplained['assets'][string]
export type Runs = z.output<typeof runs>
export type RunPage = z.output<typeof runPage>
export type RunInput = z.output<typeof input>
export type RunHistory = z.output<typeof history>
export type RunLogs = z.output<typeof logs>
export type LogLine = z.output<typeof s.logLine>
export type Scatter = z.output<typeof s.scatter>
export type ScatterMap = z.output<typeof s.scatterMap>
export type ScatterTiles = z.output<typeof s.scatterTiles>
export type ScatterErrors = z.output<typeof errors>
export type ErrorGroup = z.output<typeof s.errorGroup>
export type Instance = z.output<typeof s.instance>
export type Span = z.output<typeof s.span>
export type Gate = z.output<typeof s.gate>
export type Gates = z.output<typeof gates>
export type Why = z.output<typeof why>
export type Fact = z.output<typeof s.fact>
export type Log = z.output<typeof log>
export type Audit = z.output<typeof audit>
export type AuditEntry = z.output<typeof s.auditEntry>
export type Rail = z.output<typeof rail>
export type RailPoint = z.output<typeof s.railPoint>
export type Workers = z.output<typeof workers>
export type Worker = z.output<typeof s.worker>
export type Engine = z.output<typeof s.engine>
export type Shard = z.output<typeof s.shard>
export type Asset = z.output<typeof s.asset>
export type Pipeline = z.output<typeof s.pipeline>
export type Schedule = z.output<typeof s.schedule>
export type Limit = z.output<typeof s.limit>
export type Limits = z.output<typeof limits>
export type Assets = z.output<typeof assets>
export type AssetPage = z.output<typeof assetPage>
export type Partitions = z.output<typeof partitions>
export type Value = z.output<typeof s.value>
export type Pipelines = z.output<typeof pipelines>
export type Schedules = z.output<typeof schedules>
export type Occurrence = z.output<typeof s.occurrence>
export type Occurrences = z.output<typeof occurrences>
export type Sensor = z.output<typeof s.sensor>
export type Sensors = z.output<typeof sensors>
export type Subscription = z.output<typeof events.subscription>
export type Subscriptions = z.output<typeof subscriptions>
export type RefusedMessage = z.output<typeof events.refusedMessage>
export type RefusedMessages = z.output<typeof refused>
export type RefusedTrigger = z.output<typeof events.refusedTrigger>
export type RefusedTriggers = z.output<typeof triggers>
/** An error of user code, with its causes. */
export interface ErrorShown {
  code: string
  message: string
  cause?: ErrorShown | undefined
  errors?: ErrorShown[] | undefined
}
