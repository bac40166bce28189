import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { expect, it } from 'vitest'
import { program } from '../../src/cli/program.ts'

const PAGE = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8')

function commandsOf(command: Command, path: readonly string[] = []): { path: string; options: string[] }[] {
  const options = command.options.flatMap(({ long }) => long ?? [])
  const own =
    path.length > 0 && (command.commands.length === 0 || options.length > 0) ? [{ path: path.join(' '), options }] : []
  return [...own, ...command.commands.flatMap((inner) => commandsOf(inner, [...path, inner.name()]))]
}

it.each(commandsOf(program()))('the page of the command line names `$path` and its options', ({ path, options }) => {
  expect(PAGE).toContain(`\`${path}`)
  const missing = options.filter((option) => !new RegExp(`\`${option}\\b`).test(PAGE))
  expect(missing).toEqual([])
})

it('the page of the command line names no option that is not there', () => {
  const known = new Set(commandsOf(program()).flatMap(({ options }) => options))
  const named = [...PAGE.matchAll(/`(--[a-z][a-z-]+)/g)].flatMap(([, name]) => name ?? [])
  expect(named.filter((name) => !known.has(name) && name !== '--help')).toEqual([])
})
