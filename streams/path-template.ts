/** Paths with ids in them, such as `gate.:run.:asset.:gate.created`. */
import { FlowStoneError } from './errors.ts'

export class PathTemplate {
  readonly #of: string
  readonly #start: string
  /** Each id, and the text between it and the next one. */
  readonly #rest: readonly (readonly [id: string, text: string])[]

  /** `of`: what errors call it. */
  constructor(of: string, path: string) {
    this.#of = of
    const rest: [string, string][] = []
    let start = ''
    for (const [i, token] of path.split('.').entries()) {
      const dot = i === 0 ? '' : '.'
      const last = rest.at(-1)
      const text = token.startsWith(':') ? dot : `${dot}${token}`
      if (last) last[1] += text
      else start += text
      if (token.startsWith(':')) rest.push([token.slice(1), ''])
    }
    this.#start = start
    this.#rest = rest
  }

  /** `absent`: stands for an id that is not given. Without it, that is an error. */
  fill(ids: Readonly<Record<string, string | undefined>>, absent?: string): string {
    let path = this.#start
    for (const [id, text] of this.#rest) {
      const given = ids[id] ?? absent
      if (given === undefined) throw new FlowStoneError('internal', `${this.#of} lacks id :${id}`)
      path += given + text
    }
    return path
  }
}
