/**
 * Has a process kill itself at an append or a checkpoint: just before it leaves, or as soon as it
 * is stored. Or has it lose each append: it takes them for stored. `KILL_AT='after [.]planned'`:
 * what follows the first word is a pattern for the subject of a message, a blank, and its data.
 */
import { Checkpointer } from '../../../src/engine/shard/checkpoint.ts'
import { Appender } from '../../../src/log/appender.ts'
import type { Entry } from '../../../src/log/nats.ts'

const [, when, pattern = ''] = /^(before|after|lose) (.+)$/.exec(process.env.KILL_AT ?? '') ?? []
const wanted = new RegExp(pattern)

export function dieHere(): void {
  process.kill(process.pid, 'SIGKILL')
}

export function dieAtAppend(): void {
  if (when === undefined) return
  const append = Appender.prototype.append
  Appender.prototype.append = async function (this: Appender, ...entries: Entry[]) {
    const isHere = entries.some(({ subject, payload }) => wanted.test(`${subject} ${Buffer.from(payload)}`))
    if (isHere && when === 'lose') return { seq: 0 }
    if (isHere && when === 'before') dieHere()
    const stored = await append.apply(this, entries)
    if (isHere) dieHere()
    return stored
  }
  const write = Checkpointer.prototype.write
  Checkpointer.prototype.write = async function (this: Checkpointer, ...checkpoint: Parameters<typeof write>) {
    const isHere = checkpoint[0].some(({ subject }) => wanted.test(`${subject} `))
    if (isHere && when === 'before') dieHere()
    await write.apply(this, checkpoint)
    if (isHere) dieHere()
  }
}
