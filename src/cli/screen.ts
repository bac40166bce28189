/**
 * What a command draws again and again at the foot of a terminal. All else that is said goes above
 * it. There is one at a time in a process.
 */
import stringWidth from 'string-width'
import { printable } from '../../streams/text.ts'
import { forStream, plain } from './colour.ts'

/** Lines that are drawn in place of those before. The last ones stay when it is disposed. */
export interface Screen extends Disposable {
  /** Columns that a line has. */
  readonly width: number
  draw(lines: readonly string[]): void
}

let shown: { hide(): void; show(): void } | undefined

/**
 * Whether the cursor may be moved there: a terminal that says how large it is (some have no size),
 * and nobody who wants plain lines.
 */
export function isLive({ isTTY, columns, rows }: Pick<NodeJS.WriteStream, 'isTTY' | 'columns' | 'rows'>): boolean {
  const { CI, NO_COLOR, TERM } = process.env
  return isTTY === true && columns > 0 && rows > 0 && !CI && !NO_COLOR && TERM !== 'dumb'
}

/** Loads what it draws with, which few commands need. It hides the cursor until it is disposed. */
export async function openScreen(stream: NodeJS.WriteStream): Promise<Screen> {
  const { createLogUpdate } = await import('log-update')
  const update = createLogUpdate(stream)
  let last = ''
  const own = {
    hide: () => update.clear(),
    show: () => {
      if (last !== '') update(last)
    },
  }
  shown = own
  return {
    get width() {
      return stream.columns
    },
    draw: (lines) => {
      last = cropped(lines, stream)
        .map((line) => forStream(line, stream === process.stderr ? 'stderr' : 'stdout'))
        .join('\n')
      if (last === '') own.hide()
      else own.show()
    },
    [Symbol.dispose]: () => {
      if (shown === own) shown = undefined
      // The ^C of whoever ends it goes.
      own.hide()
      own.show()
      update.done()
    },
  }
}

/** Prints above what is drawn. */
export function above(print: () => void): void {
  shown?.hide()
  try {
    print()
  } finally {
    shown?.show()
  }
}

/** As many lines as there is room for, the first ones. */
function cropped(lines: readonly string[], { columns, rows }: NodeJS.WriteStream): string[] {
  // Below the last line stands the cursor.
  let room = rows - 1
  const fits = lines.findIndex((line) => {
    room -= Math.max(1, Math.ceil(stringWidth(printable(plain(line))) / columns))
    return room < 0
  })
  if (fits < 0) return [...lines]
  const kept = lines.slice(0, Math.max(1, fits - 1))
  return [...kept, `… and ${lines.length - kept.length} more lines`]
}
