/** A long list: only the rows in view are in the page. All have the same height. */
import type { ComponentChildren, JSX } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'

const MARGIN = 8

/** A style: a type and no interface, which has no index. */
export type Place = { readonly top: string; readonly height: string }

export function VirtualList<T>(props: {
  label: string
  rows: readonly T[]
  rowHeight: number
  keyOf: (row: T) => string
  /** Gets the style that puts the row in its place. */
  row: (row: T, style: Place, index: number) => ComponentChildren
  /** The end comes into view: more may be read. */
  onEnd?: () => void
  /** The last row stays in view when rows are added. */
  isAtEnd?: boolean
  /** Whether the first row is in view. */
  onTop?: (isTop: boolean) => void
  class?: string
}): JSX.Element {
  const { rows, rowHeight, onEnd, onTop } = props
  const box = useRef<HTMLDivElement>(null)
  const [view, setView] = useState({ top: 0, height: 600 })
  const look = (): void => {
    const { current } = box
    if (!current) return
    setView({ top: current.scrollTop, height: current.clientHeight })
    onTop?.(current.scrollTop < rowHeight)
  }
  useLayoutEffect(look, [])
  useLayoutEffect(() => {
    if (props.isAtEnd && box.current) box.current.scrollTop = box.current.scrollHeight
  }, [props.isAtEnd, rows.length])
  useEffect(() => {
    const watch = new ResizeObserver(look)
    if (box.current) watch.observe(box.current)
    return () => watch.disconnect()
  }, [])
  const from = Math.max(0, Math.floor(view.top / rowHeight) - MARGIN)
  const to = Math.min(rows.length, Math.ceil((view.top + view.height) / rowHeight) + MARGIN)
  useEffect(() => {
    if (to >= rows.length) onEnd?.()
  }, [to, rows.length])
  return (
    <section class={`list ${props.class ?? ''}`} ref={box} onScroll={look} aria-label={props.label}>
      <div class="list-inner" style={{ height: `${rows.length * rowHeight}px` }}>
        {rows.slice(from, to).map((row, i) => {
          const style = { top: `${(from + i) * rowHeight}px`, height: `${rowHeight}px` }
          return <Keyed key={props.keyOf(row)}>{props.row(row, style, from + i)}</Keyed>
        })}
      </div>
    </section>
  )
}

function Keyed({ children }: { children?: ComponentChildren }): JSX.Element {
  return <>{children}</>
}
