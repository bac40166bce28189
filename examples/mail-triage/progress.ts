/**
 * Progress on a terminal: one line that is drawn again and again, or, where output goes to a file,
 * a line of its own now and then.
 */
import { int } from './report.ts'

export interface Progress {
  readonly run: { readonly assets: Readonly<Record<string, { readonly status: string }>> }
  readonly scatters: readonly {
    readonly asset: string
    readonly total?: number | undefined
    readonly succeeded: number
    readonly failed: number
  }[]
}

/**
 * Assets that have their value, then the scatter with a bar: `3 of 5 assets   verdicts ████████░░░░
 * 1,987 of 2,967`. Pure.
 */
export function progressLine({ run, scatters }: Progress): string {
  const statuses = Object.values(run.assets).map(({ status }) => status)
  const done = statuses.filter((status) => status === 'materialized' || status === 'reused').length
  const parts = [`${done} of ${statuses.length} assets`]
  for (const { asset, total, succeeded, failed } of scatters) {
    const finished = succeeded + failed
    const of = total === undefined ? '' : ` of ${int(total)}`
    parts.push(`${asset} ${bar(finished, total)} ${int(finished)}${of}${failed > 0 ? `, ${int(failed)} failed` : ''}`)
  }
  return parts.join('   ')
}

const BAR_CELLS = 24

function bar(part: number, whole: number | undefined): string {
  const filled = whole ? Math.floor((BAR_CELLS * part) / whole) : 0
  return '█'.repeat(filled) + '░'.repeat(BAR_CELLS - filled)
}

/**
 * Shows lines as they change: often on a terminal, every two seconds elsewhere, and the last one
 * always. After `end` it shows nothing more.
 */
export function liveLine(out: NodeJS.WriteStream): { show(line: string): void; end(): void } {
  const quietMs = out.isTTY ? 50 : 2_000
  let shown = ''
  let latest = ''
  let lastAt = Number.NEGATIVE_INFINITY
  let ended = false
  const print = () => {
    if (latest === shown) return
    out.write(out.isTTY ? `\r\x1b[2K${latest.slice(0, (out.columns || 80) - 1)}` : `${latest}\n`)
    shown = latest
    lastAt = performance.now()
  }
  return {
    show: (line) => {
      latest = line
      if (!ended && performance.now() - lastAt >= quietMs) print()
    },
    end: () => {
      if (ended) return
      ended = true
      print()
      if (out.isTTY && shown !== '') out.write('\n')
    },
  }
}
