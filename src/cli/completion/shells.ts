/**
 * The scripts of the shells. They know commands and options by themselves, so that a key is
 * answered at once. Names on a server they ask the command for.
 */
import type { Flag, Place, ValueKind } from './tree.ts'

export const SHELLS = { bash, zsh, fish } as const

/** In single quotes; the same in all three, as there is no backslash in these texts. */
const quoted = (text: string): string => `'${text.replaceAll('\\', '').replaceAll("'", "'\\''")}'`

const isName = (kind: ValueKind | undefined): boolean => kind !== undefined && kind !== 'file' && kind !== 'text'

/** What stands behind an option, where that is the same for all commands that take it. */
function valuesOf(places: readonly Place[]): ReadonlyMap<string, ValueKind> {
  const kinds = new Map<string, ValueKind>()
  for (const { name, value } of places.flatMap((place) => place.flags)) {
    if (value === undefined) continue
    const known = kinds.get(name)
    kinds.set(name, known === undefined || known === value ? value : 'text')
  }
  return kinds
}

function bash(places: readonly Place[]): string {
  const values = [...valuesOf(places)].map(([flag, kind]) => `    ${flag}) kind=${kind} ;;`)
  const cases = places.map(({ path, commands, flags, argument }) =>
    [
      `    ${quoted(path)})`,
      `      commands=${quoted(commands.map(({ name }) => name).join(' '))}`,
      `      options=${quoted(flags.map(({ name }) => name).join(' '))}`,
      `      kind=${argument ?? ''}`,
      '      ;;',
    ].join('\n'),
  )
  return `# Completion of flowstone for bash.
_flowstone() {
  local cur=\${COMP_WORDS[COMP_CWORD]} at='' next commands='' options='' kind='' i
  for ((i = 1; i < COMP_CWORD; i++)); do
    next="\${at:+$at }\${COMP_WORDS[i]}"
    case "$next" in
      ${pathsOf(places).map(quoted).join(' | ')}) at=$next ;;
    esac
  done
  case "$at" in
${cases.join('\n')}
  esac
  case "\${COMP_WORDS[COMP_CWORD - 1]}" in
${values.map((line) => line.replace('kind=', "commands='' options='' kind=")).join('\n')}
  esac
  case "$cur" in
    -*) commands=$options kind='' ;;
  esac
  case "$kind" in
    '' | text | file) ;;
    *) commands="$commands $("\${COMP_WORDS[0]}" completion --names "$kind" 2>/dev/null)" ;;
  esac
  COMPREPLY=($(compgen -W "$commands" -- "$cur"))
}
complete -o bashdefault -o default -F _flowstone flowstone
`
}

function zsh(places: readonly Place[]): string {
  // The first colon ends the name.
  const items = (all: readonly { readonly name: string; readonly about: string }[]): string =>
    all.map(({ name, about }) => quoted(`${name}:${about}`)).join(' ')
  const cases = places.map(({ path, commands, flags, argument }) =>
    [
      `    (${quoted(path)})`,
      `      commands=(${items(commands)})`,
      `      options=(${items(flags)})`,
      `      kind=${argument ?? ''}`,
      '      ;;',
    ].join('\n'),
  )
  const values = [...valuesOf(places)].map(([flag, kind]) => `    (${flag}) commands=() kind=${kind} ;;`)
  return `#compdef flowstone
# Completion of flowstone for zsh.
_flowstone() {
  local at='' next kind='' i
  local -a commands options names
  for ((i = 2; i < CURRENT; i++)); do
    next="\${at:+$at }\${words[i]}"
    case "$next" in
      (${pathsOf(places).map(quoted).join('|')}) at=$next ;;
    esac
  done
  case "$at" in
${cases.join('\n')}
  esac
  case "\${words[CURRENT-1]}" in
${values.join('\n')}
  esac
  if [[ $PREFIX == -* ]]; then
    _describe option options
    return
  fi
  (( $#commands )) && _describe command commands
  case "$kind" in
    ('' | text) ;;
    (file) _files ;;
    (*)
      names=(\${(f)"$("\${words[1]}" completion --names $kind 2>/dev/null)"})
      compadd -a names
      ;;
  esac
}
if [[ $funcstack[1] == _flowstone ]]; then _flowstone "$@"; else compdef _flowstone flowstone; fi
`
}

function fish(places: readonly Place[]): string {
  // Most options are the same for many commands.
  const lines = new Map<string, string[]>()
  for (const { path, commands, flags, argument } of places) {
    const own = [
      ...commands.map(({ name, about }) => `-a ${name} -d ${quoted(about)}`),
      ...flags.map(fishFlag),
      ...(argument === 'file' ? ['-F'] : []),
      ...(isName(argument) ? [`-a '(__flowstone_names ${argument})'`] : []),
    ]
    for (const line of own) lines.set(line, [...(lines.get(line) ?? []), `"${path}"`])
  }
  const completes = [...lines].map(
    ([line, paths]) => `complete -c flowstone -n ${quoted(`__flowstone_at ${paths.join(' ')}`)} ${line}`,
  )
  return `# Completion of flowstone for fish.
set -g __flowstone_paths ${pathsOf(places).map(quoted).join(' ')}
function __flowstone_at
  set -l at ''
  for word in (commandline -opc)[2..]
    set -l next (string trim -- "$at $word")
    contains -- $next $__flowstone_paths; and set at $next
  end
  contains -- "$at" $argv
end
function __flowstone_names
  set -l command (commandline -opc)[1]
  $command completion --names $argv[1] 2>/dev/null
end
complete -c flowstone -f
${completes.join('\n')}
`
}

function fishFlag({ name, about, value }: Flag): string {
  const takes =
    value === undefined
      ? ''
      : value === 'file'
        ? ' -r -F'
        : isName(value)
          ? ` -x -a '(__flowstone_names ${value})'`
          : ' -x'
  return `-l ${name.slice(2)}${takes} -d ${quoted(about)}`
}

function pathsOf(places: readonly Place[]): string[] {
  return places.flatMap(({ path }) => (path === '' ? [] : [path]))
}
