/** A process of a bench: it is spoken to in lines, and answers in lines. */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export interface Child {
  readonly pid: number
  say(line: string): void
  /** Its next line. Rejects when it ends instead. */
  line(): Promise<string>
  /** Lets it end, as it does when nothing more can be said to it. */
  end(): Promise<void>
}

/** `program`: a file of this folder. */
export function startChild(program: string, argument: string): Child {
  const file = fileURLToPath(new URL(program, import.meta.url))
  const child = spawn(process.execPath, [file, argument], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    pid: child.pid ?? 0,
    say: (line) => void child.stdin.write(`${line}\n`),
    async line() {
      const { value, done } = await lines.next()
      if (done) throw new Error(`${program} ended`)
      return value
    },
    async end() {
      child.stdin.end()
      await exited
    },
  }
}
