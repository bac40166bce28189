/** What gates say. Pure. Their metadata is of user code: any JSON, never trusted. */
import type { Fact, Gate } from './api/types.ts'
import { count, duration, valueText } from './format.ts'
import type { UiState } from './words.ts'

const URGENT_MS = 30 * 60_000
const ASKED = ['message', 'title', 'question', 'prompt'] as const

/** What is asked: what the code said, or which asset waits. */
export function gateAsk({ metadata, asset, kind, index }: Pick<Gate, 'metadata' | 'asset' | 'kind' | 'index'>): string {
  const said = metadataOf(metadata)
  const text = ASKED.map((name) => said.get(name)).find((value) => typeof value === 'string' && value !== '')
  if (typeof text === 'string') return text
  const who = index === undefined ? asset : `${asset}, instance ${index}`
  return kind === 'approval' ? `Approve ${who}?` : `Signal for ${who}`
}

/** All else that the code said, by name. */
export function gateDetails({ metadata }: Pick<Gate, 'metadata'>): readonly (readonly [string, string])[] {
  const said = metadataOf(metadata)
  const shown = ASKED.find((name) => typeof said.get(name) === 'string')
  const context = metadataOf(said.get('context'))
  const rest = [...said].filter(([name]) => name !== shown && !(name === 'context' && context.size > 0))
  return [...rest, ...context].map(([name, value]) => [name, valueText(value)])
}

function metadataOf(metadata: unknown): Map<string, unknown> {
  if (typeof metadata !== 'object' || metadata === null || Array.isArray(metadata)) return new Map()
  return new Map(Object.entries(metadata))
}

/** How long it waits, in short. */
export function leftOf({ deadline }: Pick<Gate, 'deadline'>, now: number): { text: string; isUrgent: boolean } {
  if (deadline === undefined) return { text: 'no deadline', isUrgent: false }
  const ms = Date.parse(deadline) - now
  return { text: ms <= 0 ? 'due' : duration(ms), isUrgent: ms < URGENT_MS }
}

/** `58 min left`, within a sentence. */
export function remaining(gate: Pick<Gate, 'deadline'>, now: number): string {
  const { text } = leftOf(gate, now)
  return gate.deadline === undefined ? text : text === 'due' ? 'due now' : `${text} left`
}

/** Of a fact about a gate: which one. */
export function gateIdOf({ ids }: Pick<Fact, 'ids'>): string | undefined {
  const { run, asset, gate } = ids
  return run === undefined || asset === undefined || gate === undefined ? undefined : `${run}.${asset}.${gate}`
}

/** How it ended, for a person. */
export function gateOutcome({ status, signal, kind }: Pick<Gate, 'status' | 'signal' | 'kind'>): {
  text: string
  state: UiState
} {
  if (status === 'timed_out') return { text: 'Nobody answered in time', state: 'fail' }
  if (status === 'cancelled') return { text: 'Cancelled', state: 'off' }
  if (status === 'waiting') return { text: 'Waits', state: 'gate' }
  const payload = signal?.payload
  const approved =
    typeof payload === 'object' && payload !== null && 'approved' in payload ? payload.approved : undefined
  if (kind === 'approval' && approved === true) return { text: 'Approved', state: 'done' }
  if (kind === 'approval' && approved === false) return { text: 'Rejected', state: 'off' }
  return { text: 'Answered', state: 'done' }
}

const REFUSALS: Readonly<Record<string, string>> = {
  malformed_token: 'The token was not whole',
  invalid_signature: 'The token is not valid',
  expired: 'The gate had timed out',
  already_signaled: 'The gate was answered before',
  cancelled: 'The gate was cancelled',
  invalid_payload: 'The payload does not fit',
}

/** Why an attempt to answer was refused. */
export function refusalWords(reason: string): string {
  return REFUSALS[reason] ?? reason.replaceAll('_', ' ')
}

/** `3 answers refused`. */
export function refusedCount({ refused }: Pick<Gate, 'refused'>): string | undefined {
  if (!refused) return undefined
  return `${count(refused.count)} ${refused.count === 1 ? 'answer' : 'answers'} refused`
}

/** A fact about a gate, in words. */
export function factWords({ kind, data }: Pick<Fact, 'kind' | 'data'>): { text: string; state: UiState } {
  const said = metadataOf(data)
  const text = (name: string): string | undefined => {
    const value = said.get(name)
    return typeof value === 'string' && value !== '' ? value : undefined
  }
  const number = (name: string): number | undefined => {
    const value = said.get(name)
    return typeof value === 'number' ? value : undefined
  }
  const deadlineMs = number('deadlineMs')
  const until = deadlineMs === undefined ? '' : ` until ${new Date(deadlineMs).toISOString()}`
  const by = text('by') === undefined ? '' : ` by ${text('by')}`
  switch (kind) {
    case 'gate.created': {
      const attempt = number('attempt')
      return { text: `Opened${attempt === undefined ? '' : `, attempt ${attempt}`}${until}`, state: 'gate' }
    }
    case 'gate.extended':
      return text('why') === 'retry'
        ? { text: `Nobody answered, asked again${until}`, state: 'retry' }
        : { text: `Extended${by}${until}`, state: 'gate' }
    case 'gate.timer_fired':
      return { text: 'A deadline passed', state: 'late' }
    case 'gate.deadline_closed':
      return { text: 'The last deadline passed', state: 'late' }
    default: {
      const outcome = text('outcome') ?? 'ended'
      const from = text('source') === undefined ? by : ` by ${text('source')}`
      const reason = text('reason') === undefined ? '' : `: ${text('reason')}`
      const state = outcome === 'signaled' ? 'done' : outcome === 'cancelled' ? 'off' : 'fail'
      return { text: `${outcome === 'signaled' ? 'Answered' : outcome.replaceAll('_', ' ')}${from}${reason}`, state }
    }
  }
}
