/** The sentences that pages open with. Pure: an answer of the API in, parts of a sentence out. */
import type { Gate, Home, Run, RunExplained } from './api/types.ts'
import { count, counted, duration } from './format.ts'
import { leftOf, remaining } from './gates.ts'
import { plainInside } from './plain.ts'
import { failureOf } from './runs.ts'
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

/** Which run do I look for? */
export function runsAnswer({ runs, failed }: Home, now: number): Said[] {
  const many = runs.more ? `More than ${count(runs.open)} runs` : runs.open === 0 ? 'No run' : counted(runs.open, 'run')
  const lately = failed.filter(({ finishedAt }) => finishedAt !== undefined && now - Date.parse(finishedAt) <= HOUR_MS)
  const last = lately.length === 0 ? 'none' : count(lately.length)
  return [{ text: `${many} ${runs.open > 1 ? 'are' : 'is'} open, ${last} failed in the last hour.` }]
}

/** What must I decide, and by when? */
export function inboxAnswer(gates: readonly Gate[], isMore: boolean, now: number): Said[] {
  const [first] = gates.filter(({ deadline }) => deadline !== undefined)
  if (gates.length === 0) return [{ text: 'Nobody waits for you.' }]
  const many = isMore ? `More than ${count(gates.length)} gates` : counted(gates.length, 'gate')
  const said: Said[] = [{ text: `${many} ${gates.length === 1 ? 'waits' : 'wait'} for an answer` }]
  if (!first) return [...said, { text: ', without a deadline.' }]
  const left = leftOf(first, now)
  const tone = left.isUrgent ? ({ tone: 'fail' } as const) : {}
  return [
    ...said,
    { text: ', the first ' },
    { text: left.text === 'due' ? 'is due now' : `for ${left.text} more`, ...tone },
    { text: '.' },
  ]
}

type Held = Pick<RunExplained, 'id' | 'waitingFor' | 'assets' | 'status'>

/** What holds a run up: empty when something of it goes on. */
export function heldBy({ id, waitingFor, assets }: Held, gates: readonly Gate[], now: number): string[] {
  if (waitingFor.length > 0) return waitingFor.map((text) => plainInside(text, now))
  const open = Object.entries(assets).filter(([, { status }]) => OPEN.has(status))
  if (open.some(([, asset]) => asset.waitingFor.length === 0 && GOES_ON.has(asset.status))) return []
  return open.flatMap(([name, asset]) => {
    if (asset.status === 'suspended' && asset.waitsForRun === undefined) {
      const gate = gates.find((one) => one.id === asset.gate || one.id === `${id}.${name}.${asset.gate}`)
      const what = gate?.kind === 'approval' ? 'approval of' : 'a signal for'
      const left = asset.deadline === undefined ? '' : `, ${remaining({ deadline: asset.deadline }, now)}`
      return [`${what} ${name}${left}`]
    }
    return asset.waitingFor.filter((text) => !text.startsWith('its dependencies')).map((text) => plainInside(text, now))
  })
}

const OPEN: ReadonlySet<string> = new Set(['queued', 'running', 'suspended', 'scattering'])
const GOES_ON: ReadonlySet<string> = new Set(['running', 'scattering'])

/** Why a run waits, in a line. */
export function waitsFor(held: readonly string[]): string {
  const [first, ...others] = held
  if (first === undefined) return 'Nothing holds it up'
  return `Waits for ${first}${others.length === 0 ? '' : `, and ${counted(others.length, 'other thing')}`}`
}

/** Why is it not done? Of a past moment, and until the server has explained it. */
export function runAnswer(run: RunExplained & Pick<Run, 'finishedAt'>, gates: readonly Gate[], now: number): Said[] {
  const took = run.finishedAt === undefined ? undefined : Date.parse(run.finishedAt) - Date.parse(run.requestedAt)
  const after = took === undefined ? '' : ` after ${duration(took)}`
  if (run.status === 'failed') {
    const { asset, text } = failureOf(run)
    return [
      { text: `Failed${after}` },
      ...(asset === undefined ? [] : [{ text: ': ' }, { text: asset, mono: true }, { text: ` said: ${text}` }]),
      { text: '.' },
    ]
  }
  if (run.status === 'succeeded' || run.status === 'cancelled')
    return [{ text: `${run.status === 'succeeded' ? 'Succeeded' : 'Cancelled'}${after}.` }]
  return [{ text: `${waitsFor(heldBy(run, gates, now))}.` }]
}
