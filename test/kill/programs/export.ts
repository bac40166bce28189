/** Exports all runs in a process of its own, and dies as soon as the first of it is in the file. */
import { readdirSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { begin, tell } from './child.ts'
import { dieHere } from './dying.ts'

const { flow, settings } = await begin()
const { archive = '' } = settings
tell('ready')
const folder = dirname(archive)
setInterval(() => {
  const part = readdirSync(folder).find((name) => name.startsWith(basename(archive)) && name.endsWith('.part'))
  if (part !== undefined && statSync(join(folder, part)).size > 0) dieHere()
}, 0)
tell('exported', await flow.export({ to: archive, all: true }))
