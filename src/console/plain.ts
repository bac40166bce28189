/** Texts of the API for people who look at a page: short ids, times of the day. Pure. */
import { moment } from './format.ts'

const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g
const RUN_ID = String.raw`\d+-[0-9a-z][0-9a-z-]{8,}`
const RUN_FIRST = new RegExp(`^Run ${RUN_ID} `)
const AT_GATE = new RegExp(String.raw`:? at gate ${RUN_ID}\.[^\s;,]+`, 'g')
const PART_OF_RUN = new RegExp(String.raw`${RUN_ID}\.([\w-]+)(?:\.[\w-]+)*`, 'g')

/** What stands beside the run that it is about: the run and its gate need no name. */
export function plain(text: string, now: number): string {
  const rest = plainInside(text.replace(RUN_FIRST, ''), now)
  // Elsewhere a sentence may begin with the name of an asset, which stays as it is.
  return RUN_FIRST.test(text) ? rest.charAt(0).toUpperCase() + rest.slice(1) : rest
}

/** The same, within a sentence. */
export function plainInside(text: string, now: number): string {
  return text
    .replace(AT_GATE, '')
    .replace(PART_OF_RUN, '$1')
    .replace(TIME, (time) => moment(time, now))
}
