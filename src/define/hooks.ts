/** Hooks of a pipeline: code that hears of its runs. Calls are decided in projections/hooks. */
import { z } from 'zod'
import { hookAsset } from '../../projections/hooks/hooks.ts'
import { givenOf } from '../../projections/schedule/schedule.ts'
import { InvalidError } from '../../streams/errors.ts'
import { type HookEventData, type HookName, type HooksSpec, hookEvent } from '../../streams/hook-schemas.ts'
import type { ErrorView } from '../../streams/thrown.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { asset } from './asset.ts'
import type { RetryOptions } from './asset-options.ts'
import type { AnyAsset, AssetContext, Awaitable, GateAddress } from './asset-type.ts'
import { input } from './input.ts'
import { SecretAddress } from './secret-address.ts'

/** What a hook gets besides its event. */
export interface HookContext
  extends Pick<AssetContext, 'attempt' | 'signal' | 'log' | 'resources' | 'fail' | 'traceparent'> {
  /** The same for every attempt of a call: give it to services that drop what comes twice. */
  readonly idempotencyKey: string
}

/** The run that a hook is called for. */
export interface HookRun {
  /** The id of the run. */
  readonly run: string
  readonly pipeline: string
  /** The asset that it was asked for. */
  readonly target: string
  readonly partition: string | undefined
  /** The idempotency key that it was asked for with. */
  readonly key: string | undefined
  readonly tags: Readonly<Record<string, string>>
  readonly requestedAt: Date
  /** What started it, where that was not a client: names in the pipeline. */
  readonly schedule: string | undefined
  readonly sensor: string | undefined
  readonly subscription: string | undefined
  /** The run, and its asset, that started it by `ctx.run` and hears of its end itself. */
  readonly parent: { readonly run: string; readonly asset: string } | undefined
  /** The run that it tries again. */
  readonly retryOf: string | undefined
}

/** What `onRunFinished` gets. */
export interface RunFinishedEvent extends HookRun {
  readonly status: 'succeeded' | 'failed' | 'cancelled'
  readonly finishedAt: Date
  /** From the request to the end. */
  readonly durationMs: number
  /** The asset whose failure is that of the run. */
  readonly asset: string | undefined
  /** Why it failed, with causes and without stacks. */
  readonly error: ErrorView | undefined
}

/** What `onRunFailed` gets. */
export interface RunFailedEvent extends RunFinishedEvent {
  readonly status: 'failed'
  readonly error: ErrorView
}

/** What `onLate` gets. */
export interface RunLateEvent extends HookRun {
  /** `queued`: others of its concurrency key are active. `requested`: it is not planned yet. */
  readonly status: 'queued' | 'requested' | 'running'
  /** `lateAfter`, in milliseconds. */
  readonly afterMs: number
  /** Assets that have not ended, the first ten. */
  readonly open: readonly string[]
}

/** What `onGateOpened` gets. */
export interface GateOpenedEvent extends HookRun {
  /** The id of the gate: `<run>.<asset>.<gate>`. No secret. */
  readonly gate: string
  readonly kind: 'signal' | 'approval'
  /** The asset that waits. */
  readonly asset: string
  /** Which instance, of a scatter. */
  readonly index: number | undefined
  readonly openedAt: Date
  /** When it times out; undefined: never. */
  readonly deadline: Date | undefined
  /** Of an approval: `{ message, context }`. */
  readonly metadata: unknown
  /**
   * Whoever has it may answer, once. Signed when it is read, with the secret of the worker. Read it
   * by its name: copies, JSON and logs of the event are without it, and without `callbackUrl`.
   */
  readonly token: string
  /**
   * Where the token is taken over HTTP, and where people see the page of an approval. Throws
   * InvalidError where `connect({ gates: { baseUrl } })` and FLOWSTONE_BASE_URL say nothing.
   */
  readonly callbackUrl: string
}

/** Hooks of a pipeline: `pipeline(name, assets, { hooks: { onRunFailed: … } })`. */
export interface PipelineHooks {
  /** A run has failed. */
  onRunFailed?(ctx: HookContext, event: RunFailedEvent): Awaitable<unknown>
  /** A run has ended, in any way. */
  onRunFinished?(ctx: HookContext, event: RunFinishedEvent): Awaitable<unknown>
  /** A gate waits for a signal or a decision. Also called for each gate of a scatter. */
  onGateOpened?(ctx: HookContext, event: GateOpenedEvent): Awaitable<unknown>
  /** A run is open since `lateAfter`, counted from its request. Called once for a run. */
  onLate?(ctx: HookContext, event: RunLateEvent): Awaitable<unknown>
  /** When a run is late, such as `'30m'`. Needs `onLate`. */
  readonly lateAfter?: Duration
  /** How often a call that fails is tried. Default `{ maxAttempts: 10, backoff: '1s..10m' }`. */
  readonly retry?: RetryOptions
  /** Longest time for one attempt of a call. Default `'1m'`. */
  readonly timeout?: Duration
  /**
   * Which workers call them. Default `default`, or the queue of the first asset if none has that.
   */
  readonly queue?: string
}

/** Hooks as a pipeline has them. */
export interface ParsedHooks {
  readonly spec: HooksSpec
  readonly internal: readonly AnyAsset[]
}

const NAMES: OptionNames<PipelineHooks> = {
  onRunFailed: true,
  onRunFinished: true,
  onGateOpened: true,
  onLate: true,
  lateAfter: true,
  retry: true,
  timeout: true,
  queue: true,
}
const RETRY: RetryOptions = { maxAttempts: 10, backoff: '1s..10m' }
const TIMEOUT = '1m'

type AddressOf = (gate: string, keyId: string) => GateAddress
type Call = (ctx: HookContext, data: HookEventData, addressOf: AddressOf) => unknown

/** Throws InvalidError that names the option at fault. */
export function parseHooks(at: string, hooks: PipelineHooks, assets: readonly AnyAsset[]): ParsedHooks {
  if (typeof hooks !== 'object' || hooks === null)
    throw new InvalidError(`${at} must be an object such as { onRunFailed: (ctx, event) => … }`)
  refuseUnknown(at, hooks, NAMES)
  const calls: Readonly<Record<HookName, Call | undefined>> = {
    run_failed: callOf(at, hooks, 'onRunFailed', failedEvent),
    run_finished: callOf(at, hooks, 'onRunFinished', finishedEvent),
    gate_opened: callOf(at, hooks, 'onGateOpened', gateEvent),
    late: callOf(at, hooks, 'onLate', lateEvent),
  }
  const { lateAfter, retry = RETRY, timeout = TIMEOUT } = hooks
  if ((lateAfter === undefined) !== (hooks.onLate === undefined))
    throw new InvalidError(`${at}: onLate and lateAfter need each other: { onLate, lateAfter: '30m' }`)
  const queues = assets.map(({ definition }) => definition.spec.queue)
  const queue = hooks.queue ?? (queues.includes('default') ? 'default' : queues[0]) ?? 'default'
  const members = Object.entries(calls).flatMap(([on, call]) => (call ? [{ on: on as HookName, call }] : []))
  if (members.length === 0)
    throw new InvalidError(`${at}: name at least one of onRunFailed, onRunFinished, onGateOpened and onLate`)
  return {
    spec: {
      on: members.map(({ on }) => on),
      ...(lateAfter === undefined ? {} : { lateAfterMs: parseDuration(`${at}: lateAfter`, lateAfter, { minMs: 1 }) }),
    },
    internal: members.flatMap(({ on, call }) => internalAssets(at, on, call, { retry, timeout, queue })),
  }
}

function callOf<E>(
  at: string,
  hooks: PipelineHooks,
  name: 'onRunFailed' | 'onRunFinished' | 'onGateOpened' | 'onLate',
  eventOf: (data: HookEventData, addressOf: AddressOf) => E,
): Call | undefined {
  const code: unknown = hooks[name]
  if (code === undefined) return undefined
  if (typeof code !== 'function') throw new InvalidError(`${at}: ${name} must be a function, got ${typeof code}`)
  return (ctx, data, addressOf) => code.call(hooks, ctx, eventOf(data, addressOf))
}

/** An input that holds the event, and an asset that calls the hook with it. */
function internalAssets(
  at: string,
  on: HookName,
  call: Call,
  settings: { readonly retry: RetryOptions; readonly timeout: Duration; readonly queue: string },
): AnyAsset[] {
  const name = hookAsset(on)
  const given = hidden(input(givenOf(name), z.unknown()))
  const caller = named(at, () => asset(name, { dependsOn: [given], ...settings, execute: () => undefined }))
  const hook: AnyAsset['definition']['hook'] = async (ctx, deps, addressOf) => {
    const { attempt, idempotencyKey, log, resources, fail } = ctx
    const context: HookContext = {
      attempt,
      idempotencyKey,
      get signal() {
        return ctx.signal
      },
      get traceparent() {
        return ctx.traceparent
      },
      log,
      resources,
      fail,
    }
    await call(context, hookEvent.parse(deps[given.name]), addressOf)
    return null
  }
  const { definition } = hidden(caller)
  return [given, { name, definition: { ...definition, hook } }]
}

/** Users know the option, and not the asset that is made of it. */
function named<T>(at: string, declare: () => T): T {
  try {
    return declare()
  } catch (error) {
    if (error instanceof InvalidError) throw new InvalidError(error.message.replace(/^asset \S+:/, `${at}:`))
    throw error
  }
}

function hidden(member: AnyAsset): AnyAsset {
  const { name, definition } = member
  return { name, definition: { ...definition, spec: { ...definition.spec, internal: true } } }
}

function runOf(data: HookEventData): HookRun {
  const { run, pipeline, target, partition, key, tags = {}, requestedMs } = data
  const { schedule, sensor, subscription, parent, retryOf } = data
  const requestedAt = new Date(requestedMs)
  return { run, pipeline, target, partition, key, tags, requestedAt, schedule, sensor, subscription, parent, retryOf }
}

function finishedEvent(data: HookEventData): RunFinishedEvent {
  const { status, finishedMs, asset, error } = partOf(data.finished)
  const durationMs = finishedMs - data.requestedMs
  return { ...runOf(data), status, finishedAt: new Date(finishedMs), durationMs, asset, error }
}

function failedEvent(data: HookEventData): RunFailedEvent {
  const event = finishedEvent(data)
  const error = event.error ?? { code: 'internal', message: 'the run has failed' }
  return { ...event, status: 'failed', error }
}

function lateEvent(data: HookEventData): RunLateEvent {
  return { ...runOf(data), ...partOf(data.late) }
}

function gateEvent(data: HookEventData, addressOf: AddressOf): GateOpenedEvent {
  const { id, asset, index, kind, openedMs, deadlineMs, metadata, keyId } = partOf(data.gate)
  return Object.assign(new SecretAddress(() => addressOf(id, keyId)), {
    ...runOf(data),
    gate: id,
    kind,
    asset,
    index,
    openedAt: new Date(openedMs),
    deadline: deadlineMs === undefined ? undefined : new Date(deadlineMs),
    metadata,
  })
}

/** Each hook's event has the part that it is about. */
function partOf<P>(part: P | undefined): P {
  if (part !== undefined) return part
  throw new InvalidError(
    'the event of this call lacks what the hook is about; a newer FlowStone wrote it: upgrade this worker',
  )
}
