/** The sentences that pages open with. Pure: an answer of the API in, parts of a sentence out. */
import type { Home } from './api/types.ts'
import { count, counted } from './format.ts'
import type { UiState } from './words.ts'

/** A part of a sentence. Parts stand beside each other as they are: spaces are theirs. */
export interface Said {
  readonly text: string
  readonly tone?: UiState
  /** Of a page of ours. */
  readonly href?: string
  /** A name of code. */
  readonly mono?: boolean
}

export type Linker = (path: readonly string[], query?: Readonly<Record<string, string>>) => string

const HOUR_MS = 3_600_000

/** Does anything need me? */
export function homeAnswer({ runs, gates, failed, problems }: Home, now: number, link: Linker): Said[] {
  const lately = failed.filter(({ finishedAt }) => finishedAt !== undefined && now - Date.parse(finishedAt) <= HOUR_MS)
  const said: Said[] = []
  const [problem] = problems
  if (problem)
    said.push({ text: `An engine has a problem: ${problem.message}. `, tone: 'fail', href: link(['workers']) })
  const open = runs.more ? `More than ${count(runs.open)} runs` : runs.open === 0 ? 'No run' : counted(runs.open, 'run')
  said.push({ text: `${open} ${runs.open > 1 ? 'are' : 'is'} open. ` })
  if (gates.waiting > 0) {
    const many = gates.more ? `More than ${count(gates.waiting)} gates` : counted(gates.waiting, 'gate')
    said.push(
      { text: `${many} ${gates.waiting === 1 ? 'waits' : 'wait'} for you.`, tone: 'gate', href: link(['inbox']) },
      { text: ' ' },
    )
  }
  if (lately.length > 0) {
    said.push({
      text: `${counted(lately.length, 'run')} failed`,
      tone: 'fail',
      href: link(['runs'], { show: 'failed' }),
    })
    said.push({ text: ' in the last hour.' })
  } else if (gates.waiting === 0) said.push({ text: 'Nobody needs you.' })
  return said
}

/** Why a run waits, in a line: what all of its open assets wait for, or that nothing does. */
export function waitsFor(waiting: readonly string[]): string {
  const [first, ...others] = waiting
  if (first === undefined) return 'Nothing holds it up'
  const text = first.charAt(0).toUpperCase() + first.slice(1)
  return others.length === 0 ? text : `${text}, and ${counted(others.length, 'other reason')}`
}
