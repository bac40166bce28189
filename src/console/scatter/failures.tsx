/** Failures by error, and where in the keys they are. */
import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import type { ErrorGroup } from '../api/types.ts'
import { count } from '../format.ts'
import { Card, Empty } from '../parts/card.tsx'
import { lineOf } from '../runs.ts'

const SHOWN = 6

export function Failures(props: {
  groups: readonly ErrorGroup[]
  failed: number
  /** A reading has been there. */
  isKnown: boolean
  chosen: ErrorGroup | undefined
  onChoose: (group: ErrorGroup | undefined) => void
}): JSX.Element {
  const { groups, failed, isKnown, chosen, onChoose } = props
  const [isAll, setAll] = useState(false)
  const shown = isAll ? groups : groups.slice(0, SHOWN)
  const grouped = groups.reduce((sum, group) => sum + group.count, 0)
  return (
    <Card title="Failures by error" side={<span class="wide-only">Where in the keys</span>} class="failures">
      {shown.map((group) => {
        const isChosen = group === chosen
        return (
          <button
            type="button"
            class={`row failure ${isChosen ? 'current' : ''}`}
            aria-pressed={isChosen}
            data-nav
            title={group.message}
            onClick={() => onChoose(isChosen ? undefined : group)}
          >
            <span class="cut">
              <code class="strong">{group.code}</code> <span class="small dimmed">{lineOf(group)}</span>
            </span>
            <Barcode spread={group.spread} />
            <span class="number strong">{count(group.count)}</span>
          </button>
        )
      })}
      {groups.length > SHOWN && !isAll ? (
        <button type="button" class="row small link-row" onClick={() => setAll(true)}>
          {count(groups.length - SHOWN)} other errors
        </button>
      ) : null}
      {isKnown && failed > grouped && groups.length > 0 && grouped >= 100_000 ? (
        <div class="row small faint">Of the first {count(grouped)} failures.</div>
      ) : null}
      {failed === 0 ? <Empty>Nothing has failed.</Empty> : null}
      {failed > 0 && groups.length === 0 ? <Empty>Errors are being read.</Empty> : null}
    </Card>
  )
}

const HEIGHT = 14

/** A line where there are some; the stronger, the more. The number beside it says how many. */
export function Barcode({ spread }: { spread: readonly number[] }): JSX.Element {
  const most = Math.max(1, ...spread)
  return (
    <svg class="barcode" viewBox={`0 0 ${spread.length || 1} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      {spread.map((n, i) =>
        n > 0 ? <rect x={i} y={0} width={1} height={HEIGHT} opacity={(0.35 + (0.65 * n) / most).toFixed(2)} /> : null,
      )}
    </svg>
  )
}
