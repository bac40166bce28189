/**
 * What a barrier should be, without leases: of each instance only which execution is current and
 * how many have failed. And what must hold at every sequence.
 */

import { isDone, isFailed, newSegment, segmentOf } from '../../projections/scatter/bits.ts'
import { FAILURES_PER_CHUNK } from '../../projections/scatter/instances.ts'
import { parseLeaseId } from '../../projections/scatter/lease-id.ts'
import { stateKey } from '../../projections/state.ts'
import { statusOf } from '../../src/client/scatter-status.ts'
import type { Fact } from '../../streams/facts.ts'
import { barrierOf, RUN, type Sim } from './harness.ts'

interface Instance {
  execution: number
  failures: number
  /** A worker died while it ran this; with its last attempt it then runs alone. */
  lost?: boolean
  end?: 'succeeded' | 'failed'
  /** Sequence of the fact that it failed by. */
  failedAt?: number
}

export class Model {
  readonly instances: Instance[] = []
  readonly #maxAttempts: number
  open = false

  constructor(maxAttempts: number) {
    this.#maxAttempts = maxAttempts
  }

  fold(fact: Fact): void {
    if (fact.name === 'scatter.started') this.open = true
    if (fact.name === 'scatter.closed' || fact.name === 'scatter.ended_early') this.open = false
    if (!this.open) return
    if (fact.name === 'scatter.items') {
      for (let k = 0; k < fact.data.count; k++) this.instances.push({ execution: 1, failures: 0 })
    } else if (fact.name === 'scatter.outcomes') {
      const errors = new Map(fact.data.errors)
      for (const [k, index] of fact.data.at.entries()) {
        const instance = this.instances[index]
        if (!instance || instance.end) continue
        const error = errors.get(k)
        if (!error) instance.end = 'succeeded'
        else if (fact.data.ordinal === instance.execution) this.#over(instance, error.outcome, fact.seq)
      }
    } else if (fact.name === 'lease.lost' || fact.name === 'lease.returned') {
      const range = parseLeaseId(fact.data.lease)
      for (
        let index = (('from' in fact.data) ? fact.data.from : undefined) ?? range?.from ?? 0;
        index < (range?.to ?? 0);
        index++
      ) {
        const instance = this.instances[index]
        if (instance && !instance.end && instance.execution === range?.ordinal)
          this.#over(instance, fact.name === 'lease.lost' ? 'lost' : 'returned', fact.seq)
      }
    }
  }

  count(end: 'succeeded' | 'failed'): number {
    return this.instances.filter((instance) => instance.end === end).length
  }

  #over(instance: Instance, how: string, seq: number): void {
    const last = instance.failures === this.#maxAttempts - 1
    // Beside others nobody is to blame for the last attempt: it is run once more, alone.
    const blameless = how === 'lost' && last && !instance.lost && this.#maxAttempts > 1
    if (how === 'lost') instance.lost = true
    if (how !== 'returned' && !blameless) instance.failures += 1
    if (how === 'terminal' || instance.failures >= this.#maxAttempts) {
      instance.end = 'failed'
      // One whose worker died left no error on the log.
      instance.failedAt = how === 'lost' ? 0 : seq
    } else instance.execution += 1
  }
}

/** Everything that must hold of a barrier after every fact. Throws with what does not. */
export function checkBarrier(sim: Sim, model: Model): void {
  const barrier = barrierOf(sim)
  if (barrier.status !== 'open' || barrier.endedEarly) return
  const say = (what: string): never => {
    throw new Error(`at ${sim.folded} (${sim.log[sim.folded - 1]?.name}): ${what}\n${JSON.stringify(barrier)}`)
  }
  const { stored, succeeded, failed, fedTo } = barrier
  if (stored !== model.instances.length) say(`${stored} stored, the model has ${model.instances.length}`)
  if (succeeded + failed > stored) say('more done than stored')
  if (succeeded !== model.count('succeeded')) say(`succeeded should be ${model.count('succeeded')}`)
  if (failed !== model.count('failed')) say(`failed should be ${model.count('failed')}`)

  const leases = Object.entries(barrier.leases)
  const delayed = leases.filter(([, lease]) => lease.dueMs !== undefined).length
  if (barrier.delayed !== delayed) say(`delayed should be ${delayed}`)
  const kept = leases.filter(([, lease]) => lease.to !== undefined).length
  if ((barrier.saturated ?? 0) !== kept) say(`kept should be ${kept}`)
  if (leases.length - delayed - kept > Math.max(barrier.window, stored))
    say('more leases out than the window has room for')

  const inRequeued = new Map<number, number>()
  for (const range of [...barrier.requeued, ...(barrier.deferred ?? [])])
    for (let i = range.from; i < range.to; i++) inRequeued.set(i, (inRequeued.get(i) ?? 0) + 1)
  const expectedLeft = new Map<string, number>()
  const wide = leases.flatMap(([id, lease]) => {
    const range = parseLeaseId(id)
    return range ? [{ id, ...range, to: lease.to ?? range.to }] : []
  })
  for (const [index, instance] of model.instances.entries()) {
    const segment = sim.docs.peek(stateKey.segment(RUN, 's', segmentOf(index))) ?? newSegment()
    if (isDone(segment, index) !== (instance.end !== undefined)) say(`bit of ${index} should be ${instance.end}`)
    if (isFailed(segment, index) !== (instance.end === 'failed'))
      say(`failed bit of ${index} should be ${instance.end}`)
    const chunk = sim.docs.peek(stateKey.failures(RUN, 's', Math.floor(index / FAILURES_PER_CHUNK)))
    const why = chunk?.at.filter(([failed]) => failed === index).map(([, seq]) => seq) ?? []
    if (why.length > 1 || why[0] !== instance.failedAt)
      say(`${index} failed by ${instance.failedAt}, and is said to have failed by ${why}`)
    const again = barrier.retries[index]
    const refed = inRequeued.get(index) ?? 0
    if (instance.end !== undefined) {
      // A range may lie over what is done, and is fed around it; it neither begins nor ends there.
      if (again || barrier.requeued.some((range) => range.from === index || range.to === index + 1)) {
        say(`${index} is done and still waits for another execution`)
      }
      continue
    }
    if (index >= fedTo) {
      if (again || refed > 0) say(`${index} was never leased and waits for another execution`)
      continue
    }
    if (refed > 1 || (again && refed > 0)) say(`${index} is due twice`)
    if (refed === 1) continue
    if (again) {
      if (again[0] !== instance.execution || again[1] !== instance.failures) {
        say(`${index} should be in execution ${instance.execution} after ${instance.failures} failures`)
      }
      const id = `${index}-${index + 1}-${again[0]}`
      if ((barrier.leases[id]?.lost ?? false) !== (instance.lost ?? false)) say(`${index} forgot that it was lost`)
      expectedLeft.set(id, 1)
      continue
    }
    const lease = wide.find(({ from, to, ordinal }) => index >= from && index < to && ordinal === instance.execution)
    if (!lease) say(`nobody has ${index}`)
    else expectedLeft.set(lease.id, (expectedLeft.get(lease.id) ?? 0) + 1)
  }
  const status = statusOf({
    id: 's',
    barrier,
    spec: undefined,
    pipeline: 'p',
    version: 'v1',
    seen: undefined,
    nowMs: sim.nowMs,
  })
  const sum = status.leased + status.waitingForRetry + status.waiting
  if (sum !== status.pending || status.pending + status.succeeded + status.failed !== status.stored)
    say(`the counts of the status do not add up: ${JSON.stringify(status)}`)
  if (!(status.progress >= 0 && status.progress <= 100)) say(`progress is ${status.progress}`)
  const decided = sim.issued.get(sim.folded) ?? []
  if (barrier.paused && decided.some((effect) => effect.do === 'task' && effect.task.kind === 'lease'))
    say('a lease was fed although the scatter is paused')
  for (const [id, lease] of leases)
    if (lease.left !== expectedLeft.get(id)) say(`lease ${id} should have ${expectedLeft.get(id)} left`)
  for (const id of expectedLeft.keys()) if (!barrier.leases[id]) say(`lease ${id} is missing`)
}
