/**
 * The spans of what a worker does: attempts, leases, instances, and what continues after a gate. A
 * scatter may have millions of instances, so only those have a span that are sampled, and of the
 * others the first where a lease is one instance.
 */

import type { AttemptTask, LeaseTask, ReminderTask, ResumeTask, Task } from '../../../streams/tasks.ts'
import { partSpan, runSpan, type SpanName, type TracedRun, tracedPart } from '../../../streams/trace.ts'
import {
  type CodeSpan,
  SHOWN_INSTANCES,
  type SpanAttributes,
  type TracedSpan,
  type Tracing,
  tracing,
} from '../../tracing.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import type { WorkerShared } from './shared.ts'

/** Nobody wants spans. */
const NO_SPAN: CodeSpan = { run: (code) => code(), end: () => undefined }

export function tracedRun({ names }: Pick<WorkerShared, 'names'>, { run, trace }: Task): TracedRun {
  return { namespace: names.ns, run, ...(trace ? { trace } : {}) }
}

/** The span that the code of a task runs in. */
export function beginSpan(shared: WorkerShared, task: Task): CodeSpan {
  const traced = tracing()
  if (!traced) return NO_SPAN
  const of = tracedRun(shared, task)
  if (isShown(traced, of, task)) return traced.begin(spanOf(shared, of, task))
  // What the code of instances sends is below their scatter.
  return { run: (code) => traced.within(of, parentOf(of, task), code), end: () => undefined }
}

function isShown(traced: Tracing, of: TracedRun, task: Task): boolean {
  const index = task.kind === 'lease' ? (task.to - task.from > 1 ? undefined : task.from) : indexOf(task)
  return index === undefined || index < SHOWN_INSTANCES || traced.isSampled(of, task.asset, index)
}

/** Where a worker has died, who finds that out records its span. */
export function recordLost(shared: WorkerShared, held: InFlightTask, task: Task): void {
  const traced = tracing()
  if (!traced) return
  const of = tracedRun(shared, task)
  if (!isShown(traced, of, task)) return
  const nowMs = Date.now()
  const { attributes, ...span } = spanOf(shared, of, task)
  const { 'flowstone.worker': _, ...known } = attributes
  const lost = { ...span, attributes: { ...known, 'flowstone.outcome': 'lost' } }
  traced.record(lost, nowMs - held.ageMs - held.heldMs, nowMs, new Error('its worker died or was cut off'))
}

function spanOf(shared: WorkerShared, of: TracedRun, task: Task): TracedSpan {
  const attributes = {
    'flowstone.namespace': of.namespace,
    'flowstone.run.id': task.run,
    'flowstone.pipeline': task.pipeline,
    'flowstone.asset': task.asset,
    'flowstone.partition': task.partition,
    'flowstone.worker': shared.id,
    'flowstone.attempt': task.attempt,
    ...ownAttributes(task),
  }
  const links = 'from' in task && typeof task.from === 'object' ? [gateSpan(of, task.asset, task.from.gate)] : []
  const name = `${task.asset}.${task.kind}`
  return { name, of, span: partSpan(of, partOf(task)), parent: parentOf(of, task), links, attributes }
}

function gateSpan(of: TracedRun, asset: string, gate: string): SpanName {
  return partSpan(of, tracedPart.gate(asset, gate))
}

function ownAttributes(task: Task): SpanAttributes {
  switch (task.kind) {
    case 'lease':
      return { 'flowstone.lease': task.lease, 'flowstone.lease.from': task.from, 'flowstone.lease.to': task.to }
    case 'resume':
    case 'reminder':
      return { 'flowstone.gate': task.from.gate, 'flowstone.instance': task.index }
    default:
      return task.from ? { 'flowstone.gate': task.from.gate } : {}
  }
}

function indexOf(task: Task): number | undefined {
  return task.kind === 'resume' || task.kind === 'reminder' ? task.index : undefined
}

/** Instances are below their scatter, which the engine records when it is closed. */
function parentOf(of: TracedRun, task: Task): SpanName {
  const isOfScatter = task.kind === 'lease' || indexOf(task) !== undefined
  return isOfScatter ? partSpan(of, tracedPart.scatter(task.asset)) : runSpan(of)
}

function partOf(task: AttemptTask | LeaseTask | ResumeTask | ReminderTask): string {
  switch (task.kind) {
    case 'lease':
      return tracedPart.lease(task.asset, task.lease)
    case 'resume':
      return tracedPart.resume(task.asset, task.from.gate, task.ordinal)
    case 'reminder':
      return tracedPart.reminder(task.asset, task.from.gate, task.from.timeouts)
    default:
      return tracedPart.attempt(task.asset, task.attempt)
  }
}

/** The instances of a lease that have a span of their own. */
export class InstanceSpans {
  readonly #tracing: Tracing
  readonly #of: TracedRun
  readonly #task: LeaseTask
  readonly #parent: SpanName

  private constructor(traced: Tracing, of: TracedRun, task: LeaseTask) {
    this.#tracing = traced
    this.#of = of
    this.#task = task
    this.#parent = partSpan(of, tracedPart.lease(task.asset, task.lease))
  }

  /** Undefined where none has, or the lease itself is the span of its only instance. */
  static of(shared: WorkerShared, task: LeaseTask): InstanceSpans | undefined {
    const traced = tracing()
    if (!traced?.samplesInstances || task.to - task.from === 1) return undefined
    return new InstanceSpans(traced, tracedRun(shared, task), task)
  }

  isSampled(index: number): boolean {
    return this.#tracing.isSampled(this.#of, this.#task.asset, index)
  }

  within<T>(index: number, code: () => T): T {
    return this.#tracing.within(this.#of, this.#spanOf(index), code)
  }

  /** It ended just now, after `ms`. */
  ended(index: number, ms: number, outcome: string, error?: unknown): void {
    if (!this.isSampled(index)) return
    const { run, pipeline, asset, attempt } = this.#task
    const attributes = {
      'flowstone.run.id': run,
      'flowstone.pipeline': pipeline,
      'flowstone.asset': asset,
      'flowstone.instance': index,
      'flowstone.attempt': attempt,
      'flowstone.outcome': outcome,
    }
    const nowMs = Date.now()
    const what = {
      name: `${asset}.instance`,
      of: this.#of,
      span: this.#spanOf(index),
      parent: this.#parent,
      attributes,
    }
    this.#tracing.record(what, nowMs - ms, nowMs, error)
  }

  #spanOf(index: number): SpanName {
    const { asset, attempt } = this.#task
    return partSpan(this.#of, tracedPart.instance(asset, index, attempt))
  }
}
