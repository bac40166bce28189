/** FlowStone: asset-first data orchestration, event-sourced on NATS JetStream. */

export type { AuditEntry, AuditKind, AuditPlace } from '../projections/audit.ts'
export type { Finding, FindingLevel } from '../projections/doctor/finding.ts'
export type {
  ProofCheckpoint,
  ProofFinding,
  ProofGap,
  ProofProblem,
  ProofReport,
} from '../projections/proof/findings.ts'
export type { Why, WhyAbout, WhyFact, WhyLink, WhyState } from '../projections/why/types.ts'
export type { ErrorCode } from '../streams/error-codes.ts'
export {
  CancelledError,
  ConflictError,
  FlowStoneError,
  InvalidError,
  RateLimitedError,
  RetryableError,
  RunFailedError,
  SignalRejectedError,
  TerminalError,
  TimeoutError,
} from '../streams/errors.ts'
export { canonicalKey, compareKeys, normalizeKey, sameKey, scatterKeyHash } from '../streams/keys.ts'
export type { LogLevel, LogLine, LogPhase } from '../streams/logs.ts'
export type { ArchiveReceipt, PrunedRun, PrunedValue } from '../streams/retention.ts'
export type { Adopted } from './client/adopt.ts'
export type { FlowAt, PositionAt, ShardSeq, When } from './client/at.ts'
export type { AuditOptions } from './client/audit.ts'
export { connect } from './client/connect.ts'
export type { Change, DiffOptions, FlowDiff, ValueMade } from './client/diff.ts'
export type { DoctorOptions } from './client/doctor/doctor.ts'
export type { Events, EventTest, EventTestOptions, RefusedEvent } from './client/events.ts'
export type { Flow } from './client/flow.ts'
export type { GcOptions, GcReport } from './client/gc.ts'
export type { HistoryEntry } from './client/history.ts'
export type { HookCall } from './client/hooks.ts'
export type { AssetState, ValuePlace } from './client/inspect/assets.ts'
export type { StateChanges } from './client/inspect/changes.ts'
export type { FactsBehind, FactsOptions, FactsPage, FactView, RailPoint } from './client/inspect/facts.ts'
export type { ErrorGroup, ErrorGroups, ErrorsOptions, InstanceFailure } from './client/inspect/failures.ts'
export type { Inspect } from './client/inspect/inspect.ts'
export type { InstanceAttempt, InstanceView } from './client/inspect/instance.ts'
export type { Load, QueueLoad, StreamLoad } from './client/inspect/load.ts'
export type { MapLook, MapWatch } from './client/inspect/map-watch.ts'
export type { AssetNode, PipelineGraph } from './client/inspect/pipelines.ts'
export type { MapOptions, MapTile, ScatterMap } from './client/inspect/scatter-map.ts'
export type { Span } from './client/inspect/timeline.ts'
export type { EngineView, ShardView, WorkerPipeline, WorkerView } from './client/inspect/workers.ts'
export type { LogFilter, LogsOptions, LogsPage } from './client/logs.ts'
export type { ConnectOptions, MaterializeOptions } from './client/options.ts'
export { type ArchiveVerifyOptions, type Proof, type ProofVerifyOptions, verifyArchive } from './client/proof.ts'
export type { PruneEntry, PruneOptions, PruneReport } from './client/prune.ts'
export type { Retention } from './client/retention.ts'
export type { RunRetryOptions } from './client/retry.ts'
export type { Run, RunUpdate, ScatterView } from './client/run.ts'
export type { RunStatus } from './client/run-status.ts'
export type { RunView } from './client/run-view.ts'
export type { RunsOptions } from './client/runs.ts'
export type { FailedInstance, PendingInstance, Scatters } from './client/scatter.ts'
export type { LongRunning, ScatterStatus } from './client/scatter-status.ts'
export type {
  BackfillOptions,
  OccurrenceView,
  Schedules,
  ScheduleView,
  ScheduleWhen,
  TriggerOptions,
} from './client/schedules.ts'
export type { Sensors, SensorView } from './client/sensors.ts'
export type { SubscriptionGroups, SubscriptionView } from './client/subscriptions.ts'
export type { AssetValue, ValueOptions } from './client/values.ts'
export type { WhyTarget } from './client/why.ts'
export { asset } from './define/asset.ts'
export type { InstanceOptions, RetryOptions } from './define/asset-options.ts'
export type {
  Answered,
  AnsweredGate,
  AnyAsset,
  Asset,
  AssetContext,
  FailureMode,
  FinishedChild,
  InputOf,
  InputsOf,
  InstanceContext,
  Resources,
  ScatterFailure,
  ScatterResult,
  TimedOut,
  ValueOf,
} from './define/asset-type.ts'
export type { PipelineConcurrency, RunConcurrencyOptions } from './define/concurrency.ts'
export type { ApprovalOptions, ChildRun, Decision, GateOptions, OpenedGate, Suspension } from './define/gates.ts'
export type {
  GateOpenedEvent,
  HookContext,
  HookRun,
  PipelineHooks,
  RunFailedEvent,
  RunFinishedEvent,
  RunLateEvent,
} from './define/hooks.ts'
export { type Input, input } from './define/input.ts'
export type { BucketName, RateLimit, RateLimitSettings, SlotsSettings } from './define/limits.ts'
export { type Pipeline, type PipelineOptions, pipeline } from './define/pipeline.ts'
export type { AssetRetention, RetentionOptions } from './define/retention.ts'
export type { ChildOptions, RunOptions } from './define/run-options.ts'
export {
  type AtTime,
  type DstOptions,
  type Schedule,
  type ScheduleOptions,
  type Sensed,
  type Sensor,
  type SensorOptions,
  type SensorRun,
  schedule,
  sensor,
} from './define/schedule.ts'
export type { StandardIssue, StandardResult, StandardSchema } from './define/standard-schema.ts'
export {
  type BatchOptions,
  type DebounceOptions,
  type EventMessage,
  type EventSource,
  type ItemOf,
  type Subscription,
  type SubscriptionOptions,
  subscription,
} from './define/subscription.ts'
export type { ExportOptions, ExportReport } from './engine/archive/export.ts'
export type { ImportOptions, ImportReport } from './engine/archive/import.ts'
export type { ArchiveFormat } from './engine/archive/write.ts'
export type { Engine, EngineOptions } from './engine/engine.ts'
export type { ProofOptions } from './engine/proof/settings.ts'
export type { Checkpoint } from './engine/proof/verify.ts'
export type { RebuildReport } from './engine/rebuild.ts'
export type { ArchivePlace, EngineRetention } from './engine/retention.ts'
export type { VerifyCheckName } from './engine/verify/checks.ts'
export type { VerifyCheckReport, VerifyFinding, VerifyProgress, VerifyReport } from './engine/verify/report.ts'
export type { VerifyOptions } from './engine/verify/verify.ts'
export type { Gates } from './gates/gates.ts'
export type { GatesOptions } from './gates/settings.ts'
export type { GateSecret } from './gates/token.ts'
export type {
  GateSignal,
  GateStatus,
  GateView,
  RefusedSignal,
  RefusedSignals,
  SignalAccepted,
  SignalOptions,
  SignalRejection,
} from './gates/types.ts'
export { type IoContext, type IoManager, memoryIo } from './io/manager.ts'
export type {
  AcquireOptions,
  BucketStatus,
  CheckOptions,
  Limiter,
  RateStatus,
  SlotOptions,
  SlotsStatus,
  TakeOptions,
  WithSlotOptions,
} from './limiter/limiter.ts'
export type { CheckResult } from './limiter/rates.ts'
export type { Slot } from './limiter/slot.ts'
export type { ConnectionStatus } from './log/connection.ts'
export type { Credentials } from './log/credentials.ts'
export type { PinoLogger } from './logs/logger.ts'
export type { LogOptions } from './logs/options.ts'
export type { LogFields, RunLog } from './logs/run-log.ts'
export type { Duration } from './options/duration.ts'
export type { Per, RateOption, RateSettings } from './options/rate.ts'
export { type Logger, type MaterializationEvent, TELEMETRY_CHANNELS, type TelemetryEvents } from './telemetry.ts'
export type { WorkerConfig, WorkerOptions } from './worker/options.ts'
export type { Worker } from './worker/worker.ts'
