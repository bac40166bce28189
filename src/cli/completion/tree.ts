/** What can be typed, out of the commands themselves. Pure. */
import type { Command } from 'commander'

/** Of what there are names on a server: whoever completes asks for them. */
export const NAME_KINDS = ['run', 'asset', 'scatter', 'gate', 'schedule', 'sensor', 'subscription', 'pipeline'] as const
export type NameKind = (typeof NAME_KINDS)[number]

export interface Flag {
  readonly name: string
  readonly about: string
  /** Undefined: it takes no value. */
  readonly value: ValueKind | undefined
}

/** What stands behind an option, or is the argument of a command. */
export type ValueKind = NameKind | 'file' | 'text'

export interface Place {
  /** The commands before: `gate show`. Empty at first. */
  readonly path: string
  readonly commands: readonly { readonly name: string; readonly about: string }[]
  readonly flags: readonly Flag[]
  readonly argument: ValueKind | undefined
}

const FILES = new Set(['file', 'files', 'folder', 'archive'])

/** All places, the root first. */
export function placesOf(root: Command, path = ''): Place[] {
  const argument = root.registeredArguments[0]
  const commands = root.commands.map((one) => ({ name: one.name(), about: one.description() }))
  const flags = [...root.options.flatMap(({ long, description, flags }) => flagOf(long, description, flags)), HELP]
  const own = { path, commands, flags, argument: argument && kindOf(argument.name()) }
  return [own, ...root.commands.flatMap((one) => placesOf(one, path === '' ? one.name() : `${path} ${one.name()}`))]
}

const HELP: Flag = { name: '--help', about: 'what there is', value: undefined }

function flagOf(long: string | undefined, about: string, flags: string): Flag[] {
  if (long === undefined) return []
  const [, value] = /[<[]([^>\]]+)[>\]]/.exec(flags) ?? []
  return [{ name: long, about, value: value === undefined ? undefined : kindOfValue(long, value) }]
}

/** `--pipeline <name>` names the option, `--file <file>` the value. */
function kindOfValue(long: string, value: string): ValueKind {
  const kind = kindOf(long.replace(/^--/, ''))
  return kind === 'text' ? kindOf(value) : kind
}

function kindOf(name: string): ValueKind {
  if (FILES.has(name)) return 'file'
  // Of `why`: most often it is one.
  if (name === 'what') return 'run'
  return NAME_KINDS.find((kind) => kind === name) ?? 'text'
}
