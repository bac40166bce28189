/** Counts what happens in this process, by the events of its channels. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { TelemetryEvents } from '../telemetry.ts'
import type { Meter } from './catalog.ts'

/** Begins; returns what ends it. */
export function collect(meter: Meter): () => void {
  const ends: (() => void)[] = []
  const on = <N extends keyof TelemetryEvents>(name: N, count: (event: TelemetryEvents[N]) => void): void => {
    // What is published on a channel is of its type: see `emit`.
    const listener = (message: unknown): void => count(message as TelemetryEvents[N])
    subscribe(name, listener)
    ends.push(() => unsubscribe(name, listener))
  }
  ofRuns(on, meter)
  ofWorkers(on, meter)
  ofGatesAndLimits(on, meter)
  ofEngines(on, meter)
  ofConnections(on, meter)
  return () => {
    for (const end of ends.splice(0)) end()
  }
}

const STATUSES = ['succeeded', 'failed', 'cancelled'] as const

type On = <N extends keyof TelemetryEvents>(name: N, count: (event: TelemetryEvents[N]) => void) => void

function ofRuns(on: On, meter: Meter): void {
  on('flowstone:run.requested', ({ pipeline, internal }) => {
    if (internal) return
    meter.add('flowstone.runs.requested', 1, { pipeline })
    // The first failure is seen as an increase only where there was a zero before.
    for (const status of STATUSES) meter.add('flowstone.runs.finished', 0, { pipeline, status })
  })
  on('flowstone:run.finished', ({ pipeline, status, durationMs, internal }) => {
    if (internal) return
    meter.add('flowstone.runs.finished', 1, { pipeline, status })
    meter.record('flowstone.run.duration', durationMs / 1000, { pipeline, status })
  })
  const ended = (status: string, durationMs: number): void => {
    meter.add('flowstone.scatters.ended', 1, { status })
    meter.record('flowstone.scatter.duration', durationMs / 1000, { status })
  }
  on('flowstone:scatter.complete', ({ durationMs }) => ended('complete', durationMs))
  on('flowstone:scatter.failed', ({ durationMs }) => ended('failed', durationMs))
  on('flowstone:scatter.cancel', ({ durationMs }) => ended('cancelled', durationMs))
}

function ofWorkers(on: On, meter: Meter): void {
  on('flowstone:materialization.stop', ({ pipeline, asset, phase, durationMs }) =>
    meter.record('flowstone.attempt.duration', durationMs / 1000, { pipeline, asset, phase, outcome: 'value' }),
  )
  on('flowstone:materialization.exception', ({ pipeline, asset, phase, outcome, durationMs }) =>
    meter.record('flowstone.attempt.duration', durationMs / 1000, { pipeline, asset, phase, outcome }),
  )
  on('flowstone:lease.stop', ({ pipeline, asset, durationMs, ...counts }) => {
    meter.record('flowstone.lease.duration', durationMs / 1000, { pipeline, asset })
    for (const outcome of ['succeeded', 'failed', 'suspended', 'returned'] as const)
      if (counts[outcome] > 0) meter.add('flowstone.instances.ended', counts[outcome], { pipeline, asset, outcome })
  })
  on('flowstone:task.received', ({ kind }) => meter.add('flowstone.tasks.received', 1, { kind }))
  on('flowstone:task.returned', () => meter.add('flowstone.tasks.returned', 1))
  on('flowstone:task.lost', ({ kind }) => meter.add('flowstone.tasks.lost', 1, { kind }))
  on('flowstone:worker.blocked', ({ blockedMs }) => meter.record('flowstone.worker.blocked.duration', blockedMs / 1000))
  on('flowstone:items.retry', () => meter.add('flowstone.items.retries', 1))
}

function ofGatesAndLimits(on: On, meter: Meter): void {
  on('flowstone:gate.create', ({ kind }) => meter.add('flowstone.gates.opened', 1, { kind }))
  on('flowstone:gate.refuse', ({ reason }) => meter.add('flowstone.gates.refused', 1, { reason }))
  on('flowstone:gate.end', ({ pipeline, outcome, waitedMs }) =>
    meter.record('flowstone.gate.wait.duration', waitedMs / 1000, { pipeline, outcome }),
  )
  on('flowstone:rate_limit.check', ({ allowed }) => meter.add('flowstone.limiter.checks', 1, { allowed }))
  on('flowstone:rate_limit.wait', ({ granted, durationMs }) =>
    meter.record('flowstone.limiter.wait.duration', durationMs / 1000, { granted }),
  )
  on('flowstone:rate_limit.slot_acquired', ({ durationMs }) => {
    meter.add('flowstone.limiter.slots.held', 1)
    meter.record('flowstone.limiter.slot.wait.duration', durationMs / 1000)
  })
  on('flowstone:rate_limit.slot_released', ({ lost }) => {
    meter.add('flowstone.limiter.slots.held', -1)
    if (lost) meter.add('flowstone.limiter.slots.lost', 1)
  })
}

function ofEngines(on: On, meter: Meter): void {
  on('flowstone:engine.active', ({ shard }) => {
    meter.set('flowstone.engine.active', 1, { shard })
    meter.add('flowstone.engine.bad_facts', 0, { shard })
    meter.add('flowstone.engine.repairs', 0, { shard })
  })
  on('flowstone:engine.standby', ({ shard }) => meter.set('flowstone.engine.active', 0, { shard }))
  on('flowstone:engine.checkpoint', ({ shard, keys, durationMs }) => {
    meter.record('flowstone.engine.checkpoint.duration', durationMs / 1000, { shard })
    meter.add('flowstone.engine.checkpoint.documents', keys, { shard })
  })
  on('flowstone:engine.bad_fact', ({ shard }) => meter.add('flowstone.engine.bad_facts', 1, { shard }))
  on('flowstone:engine.repaired', ({ shard }) => meter.add('flowstone.engine.repairs', 1, { shard }))
}

function ofConnections(on: On, meter: Meter): void {
  on('flowstone:connection.away', () => {
    meter.add('flowstone.connection.losses', 1)
    meter.set('flowstone.connection.away', 1)
  })
  on('flowstone:connection.back', () => meter.set('flowstone.connection.away', 0))
  on('flowstone:storage.full', ({ stream }) => meter.set('flowstone.storage.full', 1, { stream }))
  on('flowstone:storage.room', ({ stream }) => meter.set('flowstone.storage.full', 0, { stream }))
}
