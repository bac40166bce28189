/**
 * Colours of states on a terminal. A colour says again what a word says: without it nothing is
 * missing.
 *
 * Text of others is printed without escapes, so the colours are not escapes until the last moment.
 * They are marks that hold a number of this process, which no text of others knows.
 */
import { randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import { printable } from '../../streams/text.ts'

export type Colour = 'red' | 'yellow' | 'green' | 'cyan' | 'gray'

const STATES: Readonly<Record<Colour, readonly string[]>> = {
  red: ['failed', 'error', 'refused', 'lost', 'timed_out', 'silent', 'missed'],
  yellow: ['waiting', 'suspended', 'paused', 'warn', 'unseen', 'blocked', 'draining'],
  green: ['succeeded', 'materialized', 'completed', 'ok', 'resolved', 'signaled', 'answers'],
  cyan: ['running', 'scattering', 'open', 'active', 'fired'],
  gray: ['cancelled', 'skipped', 'removed', 'superseded', 'requested', 'queued'],
}
const COLOUR_OF = new Map(
  Object.entries(STATES).flatMap(([colour, states]) => states.map((state) => [state, colour as Colour] as const)),
)
const MARK = `\u{f0000}${randomBytes(6).toString('hex')}`
const MARKS = new RegExp(`${MARK}(\\w+);`, 'gu')

type Stream = 'stdout' | 'stderr'
const coloured = new Set<Stream>()

/** Called once, before anything is said. `args`: as they were typed. */
export function chooseColours(
  args: readonly string[],
  streams: Readonly<Record<Stream, Pick<NodeJS.WriteStream, 'isTTY'>>> = process,
  env: NodeJS.ProcessEnv = process.env,
): void {
  coloured.clear()
  if (args.includes('--no-color')) {
    // For processes that this one starts, too.
    env.NO_COLOR = '1'
    delete env.FORCE_COLOR
  }
  if (args.includes('--json')) return
  for (const name of ['stdout', 'stderr'] as const) if (wantsColour(streams[name], env)) coloured.add(name)
}

/** As Node does it: FORCE_COLOR comes before NO_COLOR, and both before the terminal. */
export function wantsColour(
  { isTTY }: Pick<NodeJS.WriteStream, 'isTTY'>,
  { FORCE_COLOR, NO_COLOR, TERM }: NodeJS.ProcessEnv = process.env,
): boolean {
  if (FORCE_COLOR !== undefined) return FORCE_COLOR !== '0' && FORCE_COLOR !== 'false'
  return isTTY === true && !NO_COLOR && TERM !== 'dumb'
}

/** The text in the colour of a state; as it is for a word that is none. `as`: what it says. */
export function painted(text: string, as: string = text.trim()): string {
  const colour = COLOUR_OF.get(as)
  return colour ? inColour(colour, text) : text
}

export function inColour(colour: Colour, text: string): string {
  return coloured.size === 0 || text === '' ? text : `${MARK}${colour};${text}${MARK}end;`
}

/** What is there without colours. */
export function plain(text: string): string {
  return text.replaceAll(MARKS, '')
}

/** Text as it is printed to a stream: no escapes but those of colours. */
export function forStream(text: string, stream: Stream, options: { readonly lines?: boolean } = {}): string {
  if (!text.includes(MARK)) return printable(text, options)
  let end = ''
  return text
    .split(MARKS)
    .map((part, i) => {
      if (i % 2 === 0) return printable(part, options)
      if (!coloured.has(stream)) return ''
      const [on, off] = inspect.colors[part] ?? []
      const begin = on === undefined ? end : `\u001b[${on}m`
      end = off === undefined ? '' : `\u001b[${off}m`
      return begin
    })
    .join('')
}
