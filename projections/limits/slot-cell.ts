/**
 * The cell of a bucket of slots: who holds how many, until when, and who waits. One KV message,
 * updated by compare-and-set.
 *
 *   holder   holds `weight` of the bucket's slots until its lease ends, `leaseMs` after the message that took or renewed it. Others may take its place once
 *            a lower bound of the server's time says so. Its own process counts from before it sent that message, so it knows earlier that it is lost.
 *   fence    made of the sequence of the message that took it, and its place in that: grows with each slot taken in this bucket, also when the cell had expired
 *            in between.
 *   ticket   a process that waits, in the order of coming. One that does not take what is free (it died, or hangs) is passed over after `GRACE_MS`, and
 *            forgotten when it has not been renewed for `TICKET_MS`. So the order is a matter of fairness, and the number held of safety.
 *
 * As in rate-cell.ts, the reader of a cell knows the time (and here the sequence) of the message
 * that carries it. The writer does not: 0 stands for it.
 */
import { decodeMsgpack, encodeMsgpack } from '../../streams/codec.ts'

export interface Holder {
  readonly id: string
  readonly weight: number
  readonly leaseMs: number
  /** Server time of the message that took or last renewed it; 0: of this one. */
  readonly atMs: number
  /** Server time of the message that took it; 0: of this one. */
  readonly sinceMs: number
  readonly fence: number
  /** What it is used for, in the words of whoever took it; empty: nothing was said. */
  readonly by: string
}

export interface Ticket {
  readonly process: string
  /** What the first of its waiters wants, and of how many. */
  readonly weight: number
  readonly max: number
  /** How many of its callers wait. */
  readonly waiting: number
  readonly atMs: number
  /** What the first of them want it for, when this was written. */
  readonly by: readonly string[]
}

export interface SlotCell {
  /** As it was said by whoever took one last. */
  max: number
  holders: Holder[]
  queue: Ticket[]
  /** Since when the first in the queue could go; 0: since this message; undefined: it cannot. */
  roomMs: number | undefined
  writes: string[]
}

export const TICKET_MS = 30_000
/** As many slots as a bucket has at the most. */
const FENCES_PER_MESSAGE = 10_000
const GRACE_MS = 500
const WRITES_KEPT = 8
const QUEUE_MAX = 64
export const SAID_MAX = 200
/** In a longer queue, words would make up most of the cell. */
const SAID_QUEUE_MAX = 16
/** Callers of a process whose words are in its ticket, and characters of each. */
export const SAID_WAITING = 3
export const SAID_CHARS = 128

export function emptySlots(): SlotCell {
  return { max: 0, holders: [], queue: [], roomMs: undefined, writes: [] }
}

/** The cell once its message is known; `storedMs` may be any later time. */
export function settledSlots(cell: SlotCell, storedMs: number, seq: number): SlotCell {
  let fence = seq * FENCES_PER_MESSAGE
  return {
    ...cell,
    holders: cell.holders.map((holder) => ({
      ...holder,
      atMs: holder.atMs || storedMs,
      sinceMs: holder.sinceMs || storedMs,
      fence: holder.fence || fence++,
    })),
    queue: cell.queue.map((ticket) => ({ ...ticket, atMs: ticket.atMs || storedMs })),
    roomMs: cell.roomMs === 0 ? storedMs : cell.roomMs,
  }
}

export interface Take {
  readonly id: string
  readonly process: string
  readonly weight: number
  readonly max: number
  readonly leaseMs: number
  readonly by?: string
}

/** Takes slots if they are free and nobody is before it in the queue. */
export function takeSlots(cell: SlotCell, take: Take, nowMs: number): boolean {
  const { id, weight, max, leaseMs, by = '' } = take
  // Taken before, by a write whose answer never came.
  if (renewSlot(cell, id)) return true
  if (!mayGo(cell, take, nowMs)) return false
  const holders = alive(cell, nowMs)
  // Of very many, words would make up most of the cell.
  const said = holders.length < SAID_MAX ? by : ''
  cell.holders = [...holders, { id, weight, leaseMs, atMs: 0, sinceMs: 0, fence: 0, by: said }]
  // A process that was passed over has to queue again, at the end.
  const passed = new Set(ahead(cell, take.process, max, nowMs))
  cell.queue = cell.queue.filter((ticket) => ticket.process !== take.process && !passed.has(ticket))
  cell.max = max
  return true
}

function mayGo(cell: SlotCell, { process, weight, max }: Omit<Take, 'id' | 'leaseMs'>, nowMs: number): boolean {
  const free = max - heldWeight(cell, nowMs)
  if (weight > free) return false
  const before = ahead(cell, process, max, nowMs)
  const [first] = before
  if (!first) return true
  // Somebody is before it, and could go.
  return first.weight <= free && nowMs >= roomSince(cell, nowMs) + before.length * GRACE_MS
}

/**
 * Tickets before one of this process. Those of other numbers, who may not be able to go when this
 * one is, do not stand in its way.
 */
function ahead(cell: SlotCell, process: string, max: number, nowMs: number): Ticket[] {
  const mine = cell.queue.findIndex((ticket) => ticket.process === process)
  const before = mine < 0 ? cell.queue : cell.queue.slice(0, mine)
  return before.filter((ticket) => passable(ticket, max, nowMs))
}

function passable(ticket: Ticket, max: number, nowMs: number): boolean {
  return ticket.max >= max && (ticket.atMs === 0 || ticket.atMs + TICKET_MS > nowMs)
}

/** Room that comes by a lease's end is written down by nobody. */
function roomSince(cell: SlotCell, nowMs: number): number {
  if (cell.roomMs !== undefined) return cell.roomMs || nowMs
  return Math.max(0, ...cell.holders.map(untilMs).filter((until) => until <= nowMs))
}

/**
 * False when it is not there any more: its lease ended, and somebody took its place; or the bucket
 * was reset.
 */
export function renewSlot(cell: SlotCell, id: string): boolean {
  const at = cell.holders.findIndex((holder) => holder.id === id)
  const found = cell.holders[at]
  if (!found) return false
  cell.holders = cell.holders.with(at, { ...found, atMs: 0 })
  return true
}

export function releaseSlot(cell: SlotCell, id: string): boolean {
  const left = cell.holders.filter((holder) => holder.id !== id)
  if (left.length === cell.holders.length) return false
  cell.holders = left
  return true
}

/**
 * Puts a process into the queue, or tells more of one that is there. Undefined `wish`: takes it
 * out. True when that changed anything worth writing.
 */
export function queueUp(
  cell: SlotCell,
  process: string,
  wish: Omit<Ticket, 'process' | 'atMs'> | undefined,
  nowMs: number,
): boolean {
  const at = cell.queue.findIndex((ticket) => ticket.process === process)
  const found = cell.queue[at]
  if (!wish) {
    if (found) cell.queue = cell.queue.toSpliced(at, 1)
    return found !== undefined
  }
  if (!found) {
    // More do not fit. Who is not in the queue takes what nobody in it takes.
    if (cell.queue.length >= QUEUE_MAX) return false
    const by = cell.queue.length < SAID_QUEUE_MAX ? wish.by : []
    cell.queue = [...cell.queue, { process, ...wish, by, atMs: 0 }]
    return true
  }
  // Other words alone are not worth a write.
  const same = found.weight === wish.weight && found.max === wish.max && found.waiting === wish.waiting
  if (same && (found.atMs === 0 || found.atMs + TICKET_MS / 3 > nowMs)) return false
  cell.queue = cell.queue.with(at, { process, ...wish, by: at < SAID_QUEUE_MAX ? wish.by : [], atMs: 0 })
  return true
}

/** Readies a draft for being written. `before`: the cell that it was made of. */
export function readiedSlots(cell: SlotCell, before: SlotCell, nowMs: number, write: string): SlotCell {
  const queue = cell.queue.filter(({ atMs }) => atMs === 0 || atMs + TICKET_MS > nowMs)
  const next = { ...cell, queue, writes: [...cell.writes, write].slice(-WRITES_KEPT) }
  const [first] = next.queue
  const could = first !== undefined && first.weight <= first.max - heldWeight(next, nowMs)
  const same = first?.process === before.queue[0]?.process
  next.roomMs = could ? ((same ? before.roomMs : undefined) ?? 0) : undefined
  return next
}

/**
 * When a waiting process should look again even if nobody writes, as server time: a lease ends, or
 * it may pass others.
 */
export function lookAgainMs(cell: SlotCell, process: string, max: number, nowMs: number): number {
  const ends = cell.holders.map(untilMs).filter((until) => until > nowMs)
  const before = ahead(cell, process, max, nowMs).length
  const pass = roomSince(cell, nowMs) + before * GRACE_MS
  return Math.min(...ends, before > 0 && pass > nowMs ? pass : Number.POSITIVE_INFINITY)
}

/** How long, from a lower bound of the server's time, the cell must be kept. */
export function slotsLifeMs(cell: SlotCell, nowMs: number): number {
  const ends = cell.holders.map((holder) => (holder.atMs === 0 ? holder.leaseMs : untilMs(holder) - nowMs))
  return Math.max(1000, cell.queue.length > 0 ? TICKET_MS : 0, ...ends)
}

/** Holders whose lease has not ended, for certain or perhaps. */
export function alive(cell: SlotCell, nowMs: number): Holder[] {
  return cell.holders.filter((holder) => holder.atMs === 0 || untilMs(holder) > nowMs)
}

export function heldWeight(cell: SlotCell, nowMs: number): number {
  let sum = 0
  for (const { weight } of alive(cell, nowMs)) sum += weight
  return sum
}

export function waitingFor(cell: SlotCell, nowMs: number): number {
  let sum = 0
  for (const { waiting } of queued(cell, nowMs)) sum += waiting
  return sum
}

/** Processes that have not been silent for too long. */
export function queued(cell: SlotCell, nowMs: number): Ticket[] {
  return cell.queue.filter(({ atMs }) => atMs + TICKET_MS > nowMs)
}

export function untilMs({ atMs, leaseMs }: Holder): number {
  return atMs + leaseMs
}

const VERSION = 1

export function encodeSlotCell(cell: SlotCell): Uint8Array {
  return encodeMsgpack([
    VERSION,
    cell.max,
    cell.roomMs ?? -1,
    cell.writes.join(' '),
    cell.holders.map(({ id, weight, leaseMs, atMs, sinceMs, fence, by }) => {
      const row = [id, weight, leaseMs, atMs, sinceMs, fence]
      return by === '' ? row : [...row, by]
    }),
    // Who reads the first five alone takes it as well.
    cell.queue.map(({ process, weight, max, waiting, atMs, by }) => [process, weight, max, waiting, atMs, ...by]),
  ])
}

/** Undefined for what is no cell of this version. */
export function decodeSlotCell(payload: Uint8Array): SlotCell | undefined {
  const list = decodeMsgpack(payload)
  if (!Array.isArray(list) || list[0] !== VERSION) return undefined
  const [, max, room, writes, holders, queue]: unknown[] = list
  if (typeof writes !== 'string') return undefined
  return {
    max: Number(max),
    roomMs: Number(room) < 0 ? undefined : Number(room),
    writes: writes === '' ? [] : writes.split(' '),
    holders: rowsOf(holders).map(([id, ...rest]) => {
      const [weight = 0, leaseMs = 0, atMs = 0, sinceMs = 0, fence = 0] = rest.map(Number)
      const by = typeof rest[5] === 'string' ? rest[5] : ''
      return { id: String(id), weight, leaseMs, atMs, sinceMs, fence, by }
    }),
    queue: rowsOf(queue).map(([process, ...rest]) => {
      const [weight = 0, most = 0, waiting = 0, atMs = 0] = rest.slice(0, 4).map(Number)
      const by = rest.slice(4).filter((one) => typeof one === 'string')
      return { process: String(process), weight, max: most, waiting, atMs, by }
    }),
  }
}

function rowsOf(value: unknown): unknown[][] {
  return Array.isArray(value) ? value.filter((row): row is unknown[] => Array.isArray(row)) : []
}
