/**
 * What was decided and does not stand on the log. An engine checkpoints only what it has carried
 * out, so nothing is, mostly. A log that has lost its end, or a state that was thrown away, can
 * leave some: a run whose last asset ended, and whose own end nobody wrote.
 *
 * Give it the facts in order, each with what was decided of it. Tasks are no part of this: what is
 * missing of those shows on WORK.
 */
import { type Fact, factPath } from '../../streams/facts.ts'
import { placeOf } from '../../streams/places.ts'
import type { Effect } from '../effects.ts'
import { runIdFor } from './request.ts'
import { abandonment } from './waiters.ts'

export interface PendingEffect {
  readonly effect: Effect
  /** Server time of the fact that led to it. */
  readonly timeMs: number
}

export class Pending {
  readonly #shards: number
  readonly #left = new Map<string, PendingEffect>()
  /** Gates that have not ended, by asset. */
  readonly #gates = new Map<string, Set<string>>()

  constructor(shards: number) {
    this.#shards = shards
  }

  /** Takes in a fact and what it led to. */
  add(fact: Fact, effects: readonly Effect[]): void {
    this.#see(fact)
    for (const effect of effects) {
      const key = this.#keyOf(effect)
      if (key !== undefined) this.#left.set(key, { effect, timeMs: fact.timeMs })
    }
  }

  /**
   * What is left to be carried out. To do so is harmless where it was done after the last fact
   * given.
   */
  left(): PendingEffect[] {
    return [...this.#left.values()].filter(({ effect }) => {
      if (effect.do !== 'cancel_gates') return true
      return this.#hasOpen(effect)
    })
  }

  #see(fact: Fact): void {
    this.#left.delete(placeOf(fact))
    switch (fact.name) {
      case 'run.finished':
        this.#left.delete(`run.${fact.ids.run}.planned`)
        this.#left.delete(`timer ${fact.ids.run}`)
        return
      case 'scatter.outcomes':
        if (fact.data.resumes !== undefined) this.#left.delete(outcomeOf(fact.ids, fact.data.resumes))
        return
      case 'run.timer_fired':
      case 'run.late':
      case 'scatter.timer_fired':
      case 'scatter.closed':
      case 'event.timer_fired':
        this.#left.delete(timerOf(fact))
        return
      case 'gate.created':
      case 'child.requested': {
        const asset = `${fact.ids.run}.${fact.ids.asset}`
        const gates = this.#gates.get(asset) ?? new Set()
        this.#gates.set(asset, gates.add(fact.ids.gate))
        return
      }
      case 'gate.resolved': {
        const { run, asset, gate } = fact.ids
        const gates = this.#gates.get(`${run}.${asset}`)
        gates?.delete(gate)
        if (gates?.size === 0) this.#gates.delete(`${run}.${asset}`)
        const deadlines = factPath('gate.extended', { ...fact.ids, n: '*' }).split('*')[0] ?? ''
        for (const key of this.#left.keys()) if (key.startsWith(deadlines)) this.#left.delete(key)
        return
      }
      default:
    }
  }

  #keyOf(effect: Effect): string | undefined {
    switch (effect.do) {
      case 'fact': {
        const { fact } = effect
        if (fact.name !== 'scatter.outcomes') return placeOf(fact)
        return outcomeOf(fact.ids, fact.data.resumes ?? fact.data.lease)
      }
      case 'plan':
        return `run.${effect.run}.planned`
      case 'request':
        return `run.${runIdFor(effect.trigger.request, effect.trigger.space, effect.trigger.key, this.#shards)}.requested`
      case 'start_run':
      case 'start_evaluated':
        return placeOf(effect.request)
      case 'start_sensed':
        return `sensed ${effect.request.pipeline}.${effect.request.sensor?.name ?? ''}`
      case 'timer':
        return timerOf(effect.fact)
      case 'extend_gate':
        return placeOf(effect.fact)
      case 'time_out_gate':
        return placeOf(effect.end)
      case 'cancel_gates':
        return this.#hasOpen(effect) ? `gates ${effect.run}.${effect.asset}.${effect.attempt ?? ''}` : undefined
      case 'abandon_child':
        return placeOf(abandonment(effect.child, effect.gate))
      // The reconciler looks for runs that gates wait for.
      case 'start_child':
      case 'wake_parent':
        return undefined
      // Tasks are looked for on WORK; the reconciler removes limited queues and schedules; the rest
      // are hints.
      case 'task':
      case 'abort':
      case 'alarm':
      case 'pause':
      case 'open_limited_queue':
      case 'drop_schedules':
      case 'close_limited_queue':
        return undefined
      default:
        return effect satisfies never
    }
  }

  #hasOpen({ run, asset, attempt }: Extract<Effect, { do: 'cancel_gates' }>): boolean {
    const prefix = attempt === undefined ? '' : `a${attempt}n`
    return [...(this.#gates.get(`${run}.${asset}`) ?? [])].some((gate) => gate.startsWith(prefix))
  }
}

function outcomeOf({ run, asset }: { run: string; asset: string }, gate: string): string {
  return `outcome ${run}.${asset}.${gate}`
}

/** Of a scatter, of a run, or of messages that wait for their run. */
function timerOf({ ids }: Pick<Fact, 'ids'>): string {
  if ('group' in ids) return `timer ${ids.pipeline}.${ids.subscription}.${ids.group}`
  return `timer ${'run' in ids ? ids.run : ''}${'asset' in ids ? `.${ids.asset}` : ''}`
}
