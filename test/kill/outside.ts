/**
 * The world outside of the chaos test: answers gates in random order, some twice, and keeps the
 * replies, to be compared with the log.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Flow, FlowStoneError, type GateView, type Run, SignalRejectedError } from '../../src/index.ts'

export interface Answer {
  readonly gate: string
  readonly value: string
  /** `accepted`, `repeated`, or why not. */
  readonly told: string
}

type Random = () => number

/**
 * A look reads every gate of the run, and costs the server as much as the work that it looks at.
 */
const LOOK_MS = 400

/** What is shown to people, and tells this outsider what to do. */
function wayOf({ metadata }: GateView): { index: number; way: string } {
  if (typeof metadata !== 'object' || metadata === null || !('way' in metadata) || !('index' in metadata))
    throw new Error('a gate without a way')
  return { index: Number(metadata.index), way: String(metadata.way) }
}

/** Whether nobody can say what came of it: it is asked again. */
function isUnknown(error: unknown): boolean {
  if (error instanceof SignalRejectedError) return false
  return !(error instanceof FlowStoneError && error.code === 'conflict')
}

export class Outside {
  readonly answers: Answer[] = []
  readonly extended: string[] = []
  readonly troubles: string[] = []
  readonly #flow: Flow
  readonly run: Run
  readonly #random: Random
  /** Cancels what is odd and would be redriven then. */
  readonly #cancelsOdd: boolean
  readonly #seen = new Set<string>()
  #over = false
  #done: Promise<void>

  constructor(flow: Flow, run: Run, random: Random, { cancelsOdd = false } = {}) {
    this.#flow = flow
    this.run = run
    this.#random = random
    this.#cancelsOdd = cancelsOdd
    this.#done = this.#live()
  }

  async stop(): Promise<void> {
    this.#over = true
    await this.#done
  }

  async #live(): Promise<void> {
    const acting: Promise<void>[] = []
    while (!this.#over) {
      const gates = await this.#flow.gates.list(this.run.id).catch(() => [])
      for (const gate of gates) {
        if (this.#seen.has(gate.id) || gate.status !== 'waiting') continue
        this.#seen.add(gate.id)
        acting.push(this.#act(gate).catch((error: unknown) => void this.troubles.push(`${gate.id}: ${String(error)}`)))
      }
      await sleep(LOOK_MS)
    }
    await Promise.all(acting)
  }

  async #act(gate: GateView): Promise<void> {
    const { index, way } = wayOf(gate)
    await sleep(this.#random() * 1500)
    switch (way) {
      case 'never':
        return
      case 'cancel':
        await this.#cancel(gate)
        return
      case 'redriven':
        if (this.#cancelsOdd && index % 2 === 1) await this.#cancel(gate)
        else await this.#signal(gate.id, `redriven ${index}`)
        return
      case 'extend':
        await this.#surely(() => this.#flow.gates.extend(gate.id, '5m'))
        this.extended.push(gate.id)
        await this.#signal(gate.id, `extend ${index}`)
        return
      case 'twice': {
        const [one, two] = [this.#signal(gate.id, `twice ${index}`), this.#signal(gate.id, `other ${index}`)]
        await Promise.all([one, two])
        return
      }
      default:
        await this.#signal(gate.id, way === 'second' ? 'second' : `${way} ${index}`)
    }
  }

  async #cancel({ id }: GateView): Promise<void> {
    await this.#surely(() => this.#flow.gates.cancel(id, 'not needed'))
  }

  async #signal(gate: string, value: string): Promise<void> {
    const told = await this.#surely(() =>
      this.#flow.gates.signalById(gate, { value }, { idempotencyKey: `${gate} ${value}` }),
    )
    if (told)
      this.answers.push({
        gate,
        value,
        told: typeof told === 'string' ? told : told.repeated ? 'repeated' : 'accepted',
      })
  }

  /** Until there is an answer: the server may be away. Why it was refused, where it was. */
  async #surely<T>(act: () => Promise<T>): Promise<T | string | undefined> {
    while (!this.#over) {
      try {
        return await act()
      } catch (error) {
        if (error instanceof SignalRejectedError) return error.reason
        if (!isUnknown(error)) return 'conflict'
        await sleep(100)
      }
    }
    return undefined
  }
}
