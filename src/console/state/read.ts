/**
 * What a page reads. It is read anew when its address or the moment changes, when an event says
 * that something changed, and after a failure. The last answer stays until there is another.
 */
import { useEffect, useRef, useState } from 'preact/hooks'
import { Problem, type Read } from '../api/client.ts'
import type { Topics } from '../api/live.ts'
import { useLive } from './live.ts'
import { at, isPast } from './place.ts'
import { client } from './session.ts'

export interface Reading<T> {
  /** The last answer, or undefined before the first. */
  readonly data: T | undefined
  /** Why the newest request had no answer. */
  readonly problem: Problem | undefined
  /** When the last answer came, by our clock. */
  readonly since: number | undefined
  /** The last answer is of another moment than the one that is asked for. */
  readonly isOld: boolean
  readonly reload: () => void
}

export interface ReadOptions {
  /** Read again when something of this changes. */
  readonly on?: Topics
  /** Read again so often, whatever happens. */
  readonly everyMs?: number
  /** At most so often. */
  readonly restMs?: number
}

const REST_MS = 1000
/** While the time is dragged. */
const DRAG_MS = 100
const AGAIN_MS = 3000
/** A request for another moment is given up after so long. */
const WAITED_MS = 1500
const NOTHING: Topics = {}

interface State<T> {
  readonly of: string
  readonly at?: number | undefined
  readonly data?: T
  readonly problem?: Problem
  readonly since?: number
}

/** Undefined `read`: nothing is read. */
export function useRead<T>(read: Read<T> | undefined, options: ReadOptions = {}): Reading<T> {
  const { on = NOTHING, everyMs, restMs = REST_MS } = options
  const then = read?.now ? undefined : at.value
  // What is not kept is not asked for in the past.
  const asked = read && !(read.now && isPast.value) ? read : undefined
  const place = asked ? JSON.stringify([asked.path, asked.query]) : ''
  const [state, setState] = useState<State<T>>({ of: '' })
  const reader = useRef<Reader<T>>(undefined)
  reader.current ??= new Reader<T>(setState)
  const current = reader.current
  useEffect(() => {
    current.show(asked, place, then)
  }, [place, then?.getTime()])
  useEffect(() => () => current.stop(), [])
  useLive(on, () => current.later(restMs))
  useEffect(() => {
    if (everyMs === undefined) return
    const timer = setInterval(() => {
      if (!document.hidden && !isPast.value) current.later(0)
    }, everyMs)
    return () => clearInterval(timer)
  }, [everyMs])
  const isOurs = state.of === place
  return {
    data: isOurs ? state.data : undefined,
    problem: isOurs ? state.problem : undefined,
    since: isOurs ? state.since : undefined,
    isOld: isOurs && state.data !== undefined && state.at !== then?.getTime(),
    reload: () => current.later(0),
  }
}

class Reader<T> {
  readonly #set: (change: (state: State<T>) => State<T>) => void
  #read: Read<T> | undefined
  #place = ''
  #at: Date | undefined
  #leave: AbortController | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #begun = 0
  /** While the time is dragged, one request at a time: the next is of the newest moment. */
  #isAsking = false
  #isAskedAgain = false
  /** What is being asked. It is not asked anew meanwhile: a slow answer would never come. */
  #asked: string | undefined
  #isStale = false
  #due = Number.POSITIVE_INFINITY

  constructor(set: (change: (state: State<T>) => State<T>) => void) {
    this.#set = set
  }

  show(read: Read<T> | undefined, place: string, then: Date | undefined): void {
    const isDragged = place === this.#place
    this.#read = read
    this.#place = place
    this.#at = then
    if (!read) this.stop()
    else if (isDragged && this.#isAsking && Date.now() - this.#begun < WAITED_MS) this.#isAskedAgain = true
    else this.later(isDragged ? DRAG_MS : 0)
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#due = Number.POSITIVE_INFINITY
    this.#asked = undefined
    this.#leave?.abort()
  }

  /** At the earliest `restMs` after the request before began. */
  later(restMs: number): void {
    const due = Math.max(Date.now(), this.#begun + restMs)
    if (due >= this.#due || !this.#read) return
    clearTimeout(this.#timer)
    this.#due = due
    this.#timer = setTimeout(() => void this.#ask(), due - Date.now())
  }

  async #ask(): Promise<void> {
    const read = this.#read
    const place = this.#place
    this.#due = Number.POSITIVE_INFINITY
    if (!read) return
    const asked = `${place} ${this.#at?.getTime()}`
    if (asked === this.#asked) {
      this.#isStale = true
      return
    }
    this.#asked = asked
    this.#isStale = false
    this.#begun = Date.now()
    // The last answer wins.
    this.#leave?.abort()
    const leave = new AbortController()
    this.#leave = leave
    this.#isAsking = true
    this.#isAskedAgain = false
    const then = this.#at
    try {
      const data = await client.get(read, { ...(then ? { at: then } : {}), signal: leave.signal })
      if (!leave.signal.aborted) this.#set(() => ({ of: place, at: then?.getTime(), data, since: Date.now() }))
    } catch (error) {
      if (leave.signal.aborted) return
      const problem = error instanceof Problem ? error : new Problem(0, 'internal', String(error))
      this.#set((state) => (state.of === place ? { ...state, problem } : { of: place, problem }))
      if (isPassing(problem)) this.later(AGAIN_MS)
    } finally {
      if (this.#leave === leave) {
        this.#isAsking = false
        this.#asked = undefined
        if (this.#isAskedAgain) this.later(DRAG_MS)
        else if (this.#isStale && !leave.signal.aborted) this.later(REST_MS)
      }
    }
  }
}

/** Whether it may be answered in a while. */
export function isPassing({ status }: Problem): boolean {
  return status === 0 || status === 429 || status >= 500
}
