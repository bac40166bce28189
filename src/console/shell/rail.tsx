/** The time rail under every page: what happened when. Dragging it shows that moment. */
import type { JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import type { Rail as RailAnswer } from '../api/types.ts'
import { clock, moment } from '../format.ts'
import { present } from '../state/clock.ts'
import { at, setAt } from '../state/place.ts'
import { barsOf, keyOn, LONGEST_MS, type RailBar, type Stretch, shareOf, stretchOf, timeOf } from '../state/rail.ts'
import { client, seesAll } from '../state/session.ts'
import { paint, theme } from '../state/theme.ts'

const EVERY_MS = 5000
const BAR_PX = 4

/** `isLarge`: with an axis, for the page of the log. */
export function Rail({ isLarge = false }: { isLarge?: boolean }): JSX.Element {
  const track = useRef<HTMLDivElement>(null)
  const canvas = useRef<HTMLCanvasElement>(null)
  const width = useWidth(track)
  const { stretch, bars } = useBars(Math.floor(width / BAR_PX))
  const then = at.value?.getTime()
  const now = present.value
  useEffect(() => {
    if (canvas.current) draw(canvas.current, bars, stretch, then)
  }, [bars, stretch.from, stretch.to, then, width, theme.value])
  const moveTo = (x: number): void => {
    const box = track.current?.getBoundingClientRect()
    if (!box) return
    const time = timeOf((x - box.left) / box.width, stretch, now)
    setAt(time === undefined ? undefined : new Date(time))
  }
  const text = then === undefined ? `${clock(now)}, now` : moment(then, now, true)
  return (
    <div class={`rail ${isLarge ? 'rail-large' : ''}`}>
      <span class="rail-from">{moment(stretch.from, now)}</span>
      <div
        class="rail-track"
        ref={track}
        role="slider"
        tabIndex={0}
        aria-label="Moment that is shown"
        aria-valuemin={Math.round(stretch.from / 1000)}
        aria-valuemax={Math.round(stretch.to / 1000)}
        aria-valuenow={Math.round((then ?? now) / 1000)}
        aria-valuetext={text}
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId)
          moveTo(event.clientX)
        }}
        onPointerMove={(event) => {
          if (event.buttons > 0) moveTo(event.clientX)
        }}
        onKeyDown={(event) => {
          const next = keyOn(event.key, then, now)
          if (!next) return
          event.preventDefault()
          setAt(next.at === undefined ? undefined : new Date(next.at))
        }}
      >
        <canvas ref={canvas} />
        <span class="rail-head" style={{ left: `${(shareOf(then ?? now, stretch) * 100).toFixed(3)}%` }} />
      </div>
      <span class="rail-time">{then === undefined ? clock(now) : moment(then, now, true)}</span>
    </div>
  )
}

/** Facts by time. The stretch moves on with the present. */
function useBars(points: number): { stretch: Stretch; bars: readonly RailBar[] } {
  const [bars, setBars] = useState<readonly RailBar[]>([])
  const [firstFact, setFirst] = useState<number | undefined>(undefined)
  const now = present.value
  const stretch = stretchOf(now, at.value?.getTime(), firstFact)
  const latest = useRef(stretch)
  latest.current = stretch
  const isThere = seesAll.value && points > 0
  // A stretch of the past, or the length of the present one.
  const place = stretch.to >= now ? String(stretch.to - stretch.from) : `${stretch.from}-${stretch.to}`
  useEffect(() => {
    if (!isThere) return
    const leave = new AbortController()
    const read = async (): Promise<void> => {
      const { from, to } = latest.current
      const query = {
        from: new Date(from).toISOString(),
        to: new Date(to).toISOString(),
        points: Math.min(500, points),
      }
      const answer = await client.get<RailAnswer>(reads.rail(query), { signal: leave.signal }).catch(() => undefined)
      if (!answer || leave.signal.aborted) return
      setBars(barsOf(answer.points))
      const first = answer.points.find(({ facts }) => facts > 0)
      // The shorter stretch may have left facts out.
      if (first && to - from >= LONGEST_MS) setFirst(new Date(first.from).getTime())
      else if (first && answer.points[0]?.facts) setFirst(undefined)
    }
    void read()
    const timer = setInterval(() => {
      if (!document.hidden) void read()
    }, EVERY_MS)
    return () => {
      leave.abort()
      clearInterval(timer)
    }
  }, [isThere, place, points])
  return { stretch, bars }
}

function draw(canvas: HTMLCanvasElement, bars: readonly RailBar[], stretch: Stretch, then: number | undefined): void {
  const pen = canvas.getContext('2d')
  const { clientWidth: width, clientHeight: height } = canvas
  if (!pen || width === 0) return
  const scale = devicePixelRatio
  canvas.width = width * scale
  canvas.height = height * scale
  pen.scale(scale, scale)
  for (const { height: share, failed, from } of bars) {
    if (share === 0) continue
    const isBefore = then === undefined || from <= then
    pen.fillStyle = paint(failed ? '--map-fail' : isBefore ? '--ink-3' : '--line-strong')
    const tall = Math.max(2, share * (height - 4))
    const x = shareOf(from, stretch) * width
    pen.fillRect(x, height - tall, 2.5, tall)
  }
}

function useWidth(box: { readonly current: HTMLElement | null }): number {
  const [width, setWidth] = useState(0)
  useEffect(() => {
    if (!box.current) return
    const watch = new ResizeObserver(([entry]) => setWidth(Math.round(entry?.contentRect.width ?? 0)))
    watch.observe(box.current)
    return () => watch.disconnect()
  }, [])
  return width
}
