/** What the page of who did what says. Pure. */
import type { Said } from './answers.ts'
import type { AuditEntry } from './api/types.ts'
import { count, counted, moment } from './format.ts'

export type AuditShow = 'all' | 'runs' | 'gates' | 'scatters' | 'schedules' | 'refused' | 'code'

/** Which facts each filter asks for. None: all. */
export const AUDIT_KINDS: Readonly<Record<AuditShow, readonly string[]>> = {
  all: [],
  runs: ['run'],
  gates: ['gate'],
  scatters: ['scatter'],
  schedules: ['schedule', 'sensor'],
  refused: ['event', 'trigger'],
  code: ['pipeline'],
}

/** Who did what, last? */
export function auditAnswer(entries: readonly AuditEntry[], now: number): Said[] {
  const [last] = entries
  if (!last) return [{ text: 'Nobody did anything of this kind.' }]
  const day = entries.filter(({ at }) => Date.parse(at) > now - 86_400_000)
  const people = new Set(day.map(({ by }) => by)).size
  const many =
    day.length === entries.length && day.length >= 100
      ? `${count(day.length)} acts or more`
      : counted(day.length, 'act')
  return [
    {
      text: day.length === 0 ? 'No act in the last day. ' : `${many} in the last day, by ${counted(people, 'name')}. `,
    },
    { text: `The last was ${last.by}, ${moment(last.at, now)}.` },
  ]
}

export function auditPlace({ shard, seq }: Pick<AuditEntry, 'shard' | 'seq'>): string {
  return `${shard}.${seq}`
}
