/** The timeline of a run: one row for each asset. */
import type { JSX } from 'preact'
import type { RunPage } from '../api/types.ts'
import { clock } from '../format.ts'
import { type GanttBar, type GanttRow, ganttOf } from '../gantt.ts'
import { Tag } from '../parts/card.tsx'
import { State } from '../parts/glyph.tsx'
import { address, href } from '../state/place.ts'
import { STATE_WORDS } from '../words.ts'

const MINUTE = 60_000
const TICKS_NARROW = 3

export function RunGantt({ page, now }: { page: RunPage; now: number }): JSX.Element {
  const isNarrow = matchMedia('(max-width: 760px)').matches
  const { ticks, rows, now: present, from, to } = ganttOf(page, now, isNarrow ? TICKS_NARROW : undefined)
  const withSeconds = to - from < 10 * MINUTE
  return (
    <section class="card gantt" aria-label="Timeline">
      <div class="gantt-axis" aria-hidden="true">
        {ticks.map(({ time, at }) =>
          // Beside the mark of the present there is no room.
          present !== undefined && Math.abs(at - present) < (isNarrow ? 0.2 : 0.06) ? null : (
            <span style={{ left: percent(at) }}>{clock(time, withSeconds)}</span>
          ),
        )}
        {present === undefined ? null : (
          <b class="gantt-now-word" style={{ left: percent(present) }}>
            {address.value.at ? 'then' : 'now'}
          </b>
        )}
      </div>
      <div class="gantt-rows">
        {rows.map((row) => (
          <Row row={row} run={page.run.id} />
        ))}
        {present === undefined ? null : (
          <div class="gantt-lines" aria-hidden="true">
            <i style={{ left: percent(present) }} />
          </div>
        )}
      </div>
    </section>
  )
}

function Row({ row, run }: { row: GanttRow; run: string }): JSX.Element {
  const { asset, state, isScatter, bars, text, textAt } = row
  const { query } = address.value
  const isCurrent = query.asset === asset
  return (
    <a
      class={`gantt-row ${isCurrent ? 'current' : ''}`}
      href={isScatter ? href(['runs', run, asset]) : href(['runs', run], { ...query, asset })}
      data-nav
    >
      <span class="gantt-name">
        <State state={state} label="" />
        <code class="cut">{asset}</code>
        {isScatter ? <Tag>scatter</Tag> : null}
        <span class="hidden">
          {STATE_WORDS[state]} {text}
        </span>
      </span>
      <span class="gantt-track" aria-hidden="true">
        {bars.map((bar) => (
          <Bar bar={bar} />
        ))}
        {text === '' ? null : (
          <span
            class={`gantt-text ${textAt > 0.75 ? 'before' : ''}`}
            style={textAt > 0.75 ? { right: percent(1 - textAt) } : { left: percent(textAt) }}
          >
            {text}
          </span>
        )}
      </span>
    </a>
  )
}

function Bar({ bar }: { bar: GanttBar }): JSX.Element {
  const { from, to, kind, state, failed } = bar
  const fill = kind === 'solid' || kind === 'thin' ? `fill-${state}` : ''
  return (
    <i class={`gantt-bar ${kind} ${fill}`} style={{ left: percent(from), width: percent(Math.max(0, to - from)) }}>
      {failed ? <i class="gantt-failed" style={{ height: percent(Math.max(0.12, failed)) }} /> : null}
    </i>
  )
}

function percent(share: number): string {
  return `${(share * 100).toFixed(3)}%`
}
