/** The scripts of shells that a machine may not have, by their structure. */
import { expect, it } from 'vitest'
import { SHELLS } from '../../src/cli/completion/shells.ts'
import { placesOf } from '../../src/cli/completion/tree.ts'
import { program } from '../../src/cli/program.ts'

const places = placesOf(program())
const named = places.filter(({ path }) => path !== '')
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** Without quoted texts. What is left has no quotes that are open. */
function bare(script: string): string {
  return script.replaceAll("'\\''", '').replaceAll(/'[^']*'/g, 'TEXT')
}

it('the script of zsh has a case for each command, with its commands and options', () => {
  const script = SHELLS.zsh(places)
  expect(script).toMatch(/^#compdef flowstone\n/)
  for (const { path, commands, flags, argument } of places) {
    const [, own = ''] = script.split(`    (${quoted(path)})\n`)
    const [inside = ''] = own.split(';;')
    for (const { name, about } of [...commands, ...flags])
      expect(inside, `${path} ${name}`).toContain(quoted(`${name}:${about}`.replaceAll('\\', '')))
    expect(inside, path).toContain(`kind=${argument ?? ''}\n`)
  }
  const rest = bare(script)
  expect(rest).not.toContain("'")
  for (const [open, close] of [
    [/\bcase /g, /\besac\b/g],
    [/\bdo$/gm, /\bdone\b/g],
    [/\bthen\b/g, /\bfi\b/g],
    [/\{$/gm, /^\}/gm],
  ] as const)
    expect(rest.match(open)?.length, String(open)).toBe(rest.match(close)?.length)
})

it('the script of fish has a line for each command and option, where it may stand', () => {
  const script = SHELLS.fish(places)
  const lines = script.split('\n').filter((line) => line.startsWith('complete -c flowstone -n '))
  const at = (path: string, what: string): boolean =>
    lines.some((line) => line.includes(`"${path}"`) && line.includes(`' ${what} `))
  for (const { path, commands, flags } of places) {
    for (const { name } of commands) expect(at(path, `-a ${name}`), `${path} ${name}`).toBe(true)
    for (const { name } of flags) expect(at(path, `-l ${name.slice(2)}`), `${path} ${name}`).toBe(true)
  }
  for (const { path } of named) expect(script.split('\n')[1]).toContain(quoted(path))
  const rest = bare(script)
  expect(rest).not.toContain("'")
  expect(rest.match(/^ *(function|for|if|while) /gm)?.length).toBe(rest.match(/^ *end$/gm)?.length)
})
