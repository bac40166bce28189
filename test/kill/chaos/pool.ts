/**
 * Keeps so many processes alive, each behind a proxy of its own: what a supervisor does, on a bad
 * network.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { wallMs } from '../programs/chaos.ts'
import type { Settings } from '../programs/child.ts'
import { ServerProxy } from '../proxy.ts'
import type { Child, Rig } from '../rig.ts'
import type { Random } from './random.ts'

/** A process that is asked to end has this long. */
const END_MS = 20_000
const READY_MS = 60_000

export interface Member {
  readonly child: Child
  readonly proxy: ServerProxy
}

export class Pool {
  readonly alive = new Set<Member>()
  /** When a process was killed, stopped, or cut off: what it did from then on proves nothing. */
  readonly troubled = new Map<number, number>()
  /** What must not happen. */
  readonly troubles: string[] = []
  readonly #start: { rig: Rig; program: 'engine' | 'worker'; settings: Partial<Settings>; env: Record<string, string> }
  readonly #first = Promise.withResolvers<void>()
  #over = false
  #held = 0
  readonly #keepers: Promise<void>[]

  constructor(
    count: number,
    rig: Rig,
    program: 'engine' | 'worker',
    settings: Partial<Settings>,
    env: Record<string, string> = {},
  ) {
    this.#start = { rig, program, settings, env }
    this.#keepers = Array.from({ length: count }, () => this.#keep())
  }

  /** Resolves when the first of them is active. */
  get ready(): Promise<void> {
    return this.#first.promise
  }

  trouble({ child }: Member): void {
    if (!this.troubled.has(child.pid)) this.troubled.set(child.pid, wallMs())
  }

  pick(random: Random): Member | undefined {
    // Drawn in any case, so that what follows is the same however many there are.
    const dice = random()
    return [...this.alive][Math.floor(dice * this.alive.size)]
  }

  /** Asks one to end, as a deploy does. */
  async drain(member: Member): Promise<void> {
    member.child.signal('SIGTERM')
    await this.#ended(member)
  }

  /** Ends all of them, and starts none until `act` has ended. */
  async without<T>(act: () => Promise<T>): Promise<T> {
    this.#held += 1
    try {
      await Promise.all([...this.alive].map((member) => this.drain(member)))
      return await act()
    } finally {
      this.#held -= 1
    }
  }

  async stop(): Promise<void> {
    this.#over = true
    await Promise.all([...this.alive].map((member) => this.drain(member)))
    await Promise.all(this.#keepers)
  }

  async #ended(member: Member): Promise<void> {
    const { child } = member
    // A process that is stopped hears nothing.
    const late = sleep(END_MS, 'late', { ref: false })
    if ((await Promise.race([child.ended, late])) !== 'late') return
    if (!this.troubled.has(child.pid))
      this.troubles.push(`process ${child.pid} (${this.#start.program}) did not end within ${END_MS} ms of SIGTERM`)
    await child.kill()
  }

  async #keep(): Promise<void> {
    const { rig, program, settings, env } = this.#start
    while (!this.#over) {
      if (this.#held > 0) {
        await sleep(20)
        continue
      }
      await using proxy = await ServerProxy.open(() => rig.port)
      const child = rig.spawn(program, { ...settings, url: proxy.url }, env)
      const member = { child, proxy }
      this.alive.add(member)
      const ready = child.has('ready', READY_MS).then(
        () => true,
        () => false,
      )
      // The server may be away just now.
      const isReady = await Promise.race([ready, child.ended.then(() => false)])
      if (isReady) this.#first.resolve()
      if (!isReady && child.isAlive) await child.kill()
      await child.ended
      this.alive.delete(member)
      if (isReady && child.exitCode !== null && child.exitCode !== 0)
        this.troubles.push(`process ${child.pid} (${program}) ended by itself: ${child.errors.slice(-1500)}`)
      if (child.exitCode !== 0) this.trouble(member)
      if (!isReady) await sleep(100)
    }
  }
}
