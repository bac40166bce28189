/** An area over time, with a line for what it may reach. */
import type { JSX } from 'preact'

const WIDTH = 600
const HEIGHT = 84

/** Only a picture: what it says stands beside it in numbers. */
export function AreaChart({ values, mark }: { values: readonly number[]; mark?: number }): JSX.Element {
  const top = Math.max(1, mark ?? 0, ...values) * 1.12
  const y = (value: number): string => (HEIGHT - (value / top) * HEIGHT).toFixed(1)
  const step = WIDTH / Math.max(1, values.length - 1)
  const line = values.map((value, i) => `${(i * step).toFixed(1)},${y(value)}`).join(' L')
  return (
    <div class="chart" aria-hidden="true">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
        {mark === undefined ? null : <path class="chart-mark" d={`M0 ${y(mark)}H${WIDTH}`} />}
        {values.length < 2 ? null : (
          <>
            <path class="chart-area" d={`M0,${HEIGHT} L${line} L${WIDTH},${HEIGHT}Z`} />
            <path class="chart-line" d={`M${line}`} />
          </>
        )}
      </svg>
      {mark === undefined ? null : (
        <span class="chart-text" style={{ top: `${((1 - mark / top) * 100).toFixed(1)}%` }}>
          {mark}
        </span>
      )}
    </div>
  )
}
