/**
 * What outsiders see of the log: which facts, and under which subjects. The ids of most are dropped
 * from the subject (the body has them), so that filters stay literal and cheap.
 */
import { decode, encodeJson } from './codec.ts'
import { FlowStoneError } from './errors.ts'

const POSITION_VERSION = 1

/** How far the feed shows a log: all facts up to `seq` of the log that was made at `created`. */
export interface FeedPosition {
  readonly seq: number
  readonly created: string
}

const ENDS: ReadonlySet<string> = new Set(['materialized', 'failed', 'skipped', 'cancelled'])

/** Where a fact stands on the feed, behind `<ns>.feed.`. Undefined for one that is not shown. */
export function feedPath(path: string): string | undefined {
  const tokens = path.split('.')
  const [kind, first, second, third, fourth, fifth] = tokens
  const is = (length: number, last: string): boolean => tokens.length === length && tokens.at(-1) === last
  switch (kind) {
    case 'asset':
      if (tokens.length !== 6 || fourth !== 'end' || fifth === undefined || !ENDS.has(fifth)) return undefined
      return `asset.${first}.${second}.${fifth}`
    case 'run':
      return is(3, 'finished') ? 'run.finished' : undefined
    case 'scatter':
      return is(4, 'closed') ? 'scatter.closed' : undefined
    // Its body has no ids, so they stay in the subject.
    case 'gate':
      return is(5, 'created') ? `gate.created.${first}.${second}.${third}` : undefined
    case 'trigger':
      return is(3, 'refused') ? 'trigger.refused' : undefined
    case 'subscription':
      return tokens.length === 6 && third === 'refused' ? `event.${first}.${second}.refused` : undefined
    // Nor has this one.
    case 'schedule':
      if (third !== 'at' || !(is(6, 'missed') || is(6, 'skipped'))) return undefined
      return `schedule.${first}.${second}.${fifth}`
    default:
      return undefined
  }
}

/** What stands there: of a refused trigger without what was sent, which may be private. */
export function feedBody(path: string, payload: Uint8Array): Uint8Array {
  if (path !== 'trigger.refused') return payload
  const body = decode(payload, 'application/json')
  if (typeof body !== 'object' || body === null || !('kept' in body)) return payload
  const { kept: _, ...shown } = body
  return encodeJson(shown)
}

export function encodeFeedPosition({ seq, created }: FeedPosition): Uint8Array {
  return encodeJson({ v: POSITION_VERSION, seq, created })
}

/** Throws `newer_version`; `unreadable` for what no engine wrote. */
export function decodeFeedPosition(payload: Uint8Array): FeedPosition {
  const doc = decode(payload, 'application/json')
  const read = (field: string): unknown =>
    typeof doc === 'object' && doc !== null ? Reflect.get(doc, field) : undefined
  const [version, seq, created] = [read('v'), read('seq'), read('created')]
  if (typeof version === 'number' && version > POSITION_VERSION)
    throw new FlowStoneError('newer_version', `the feed was written by a newer FlowStone (version ${version})`)
  if (typeof seq !== 'number' || !Number.isSafeInteger(seq) || typeof created !== 'string')
    throw new FlowStoneError('unreadable', 'the position of the feed is not what an engine wrote')
  return { seq, created }
}
