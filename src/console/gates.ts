/** What gates say. Pure. Their metadata is of user code: any JSON, never trusted. */
import type { Gate } from './api/types.ts'
import { duration, valueText } from './format.ts'

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
