/** Runs: which one do I look for? */
import type { JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { runsAnswer } from '../answers.ts'
import * as reads from '../api/reads.ts'
import type { Run, Runs as RunsAnswer } from '../api/types.ts'
import { counted, duration, moment, shortId } from '../format.ts'
import { Answer } from '../parts/answer.tsx'
import { Empty, Segments, Time } from '../parts/card.tsx'
import { State } from '../parts/glyph.tsx'
import { VirtualList } from '../parts/list.tsx'
import { Notice } from '../parts/notice.tsx'
import { filterOf, newestFirst, noteOf, type Show, startedBy } from '../runs.ts'
import { shown } from '../state/clock.ts'
import { useLive } from '../state/live.ts'
import { useOverview } from '../state/overview.ts'
import { address, at, href, isPast, setQuery } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { client, may } from '../state/session.ts'
import { runState } from '../words.ts'
import { StartRun } from './start-run.tsx'

const PAGE = 100
const ROW = 40
const ROW_TOUCH = 56
const TOPICS = { runs: true } as const

export default function Runs(): JSX.Element {
  const { show = 'all', find = '' } = address.value.query
  const query = { ...filterOf(show as Show, find), limit: PAGE }
  const reading = useRead(reads.runs(query), { on: TOPICS })
  const overview = useOverview().data
  const list = useList(reading.data, query)
  const [isStarting, setStarting] = useState(false)
  const now = shown.value
  return (
    <div class="page-full runs-page">
      <div>
        <div class="page-head runs-head">{overview ? <Answer parts={runsAnswer(overview, now)} /> : null}</div>
        <div class="page-tools">
          <Segments
            label="Which runs"
            options={SHOWS}
            value={show as Show}
            onChange={(value) => setQuery({ show: value === 'all' ? '' : value })}
          />
          <Find text={find} />
          <span class="space" />
          {list.waiting > 0 ? (
            <button type="button" class="button small" onClick={list.showAll}>
              {counted(list.waiting, 'new run')}
            </button>
          ) : null}
          {may('start') ? (
            <button type="button" class="button small" disabled={isPast.value} onClick={() => setStarting(true)}>
              Start a run
            </button>
          ) : null}
        </div>
        <Notice reading={reading} />
        <div class="list-head run-line" aria-hidden="true">
          <span />
          <span>Run</span>
          <span>Asset</span>
          <span />
          <span>Started by</span>
          <span class="number">Started</span>
          <span class="number">Took</span>
        </div>
      </div>
      {reading.data && list.rows.length === 0 ? (
        <Empty>
          No run matches.{' '}
          {show === 'all' && find === '' ? null : (
            <button type="button" class="button small" onClick={() => setQuery({ show: '', find: '' })}>
              Show all runs
            </button>
          )}
        </Empty>
      ) : (
        <VirtualList
          label="Runs"
          class={reading.problem ? 'old' : ''}
          rows={list.rows}
          rowHeight={matchMedia('(max-width: 760px)').matches ? ROW_TOUCH : ROW}
          keyOf={({ id }) => id}
          onEnd={list.more}
          onTop={list.setTop}
          row={(run, place) => (
            <a class="list-row run-line" style={place} href={href(['runs', run.id])} data-nav>
              <Line run={run} now={now} />
            </a>
          )}
        />
      )}
      {isStarting ? <StartRun onClose={() => setStarting(false)} /> : null}
    </div>
  )
}

const SHOWS: readonly (readonly [Show, string])[] = [
  ['all', 'All'],
  ['open', 'Open'],
  ['failed', 'Failed'],
  ['succeeded', 'Succeeded'],
  ['cancelled', 'Cancelled'],
]

function Line({ run, now }: { run: Run; now: number }): JSX.Element {
  const end = run.finishedAt === undefined ? now : Date.parse(run.finishedAt)
  return (
    <>
      <State state={runState(run)} />
      <code class="cut" title={run.id}>
        {shortId(run.id)}
      </code>
      <span class="cut strong">{run.target}</span>
      <span class="cut dimmed">{noteOf(run)}</span>
      <span class="cut dimmed">{startedBy(run)}</span>
      <span class="number dimmed">
        <Time of={run.requestedAt} text={moment(run.requestedAt, now)} />
      </span>
      <span class="number dimmed">{duration(end - Date.parse(run.requestedAt))}</span>
    </>
  )
}

function Find({ text }: { text: string }): JSX.Element {
  const [typed, setTyped] = useState(text)
  useEffect(() => setTyped(text), [text])
  return (
    <form
      class="find-runs"
      onSubmit={(event) => {
        event.preventDefault()
        setQuery({ find: typed.trim() })
      }}
    >
      <input
        type="text"
        aria-label="Asset as pipeline/asset, or tag as name=value"
        placeholder="pipeline/asset or tag=value"
        value={typed}
        onInput={(event) => setTyped(event.currentTarget.value)}
        onBlur={() => setQuery({ find: typed.trim() })}
      />
    </form>
  )
}

interface List {
  readonly rows: readonly Run[]
  /** New ones that are not shown while somebody reads further below. */
  readonly waiting: number
  readonly showAll: () => void
  readonly more: () => void
  readonly setTop: (isTop: boolean) => void
}

/** Pages behind one another. Rows do not move while somebody reads further below. */
function useList(first: RunsAnswer | undefined, query: ReturnType<typeof filterOf> & { limit: number }): List {
  const [known, setKnown] = useState<ReadonlyMap<string, Run>>(new Map())
  const [isTop, setTop] = useState(true)
  const [frozen, setFrozen] = useState<ReadonlySet<string> | undefined>(undefined)
  const cursor = useRef<string | undefined>(undefined)
  const isReading = useRef(false)
  const place = JSON.stringify([query, at.value?.getTime()])
  const latest = useRef(place)
  useEffect(() => {
    latest.current = place
    setKnown(new Map())
    setFrozen(undefined)
    cursor.current = undefined
  }, [place])
  useEffect(() => {
    if (!first) return
    setKnown((runs) => {
      if (runs.size <= first.runs.length) cursor.current = first.next
      return merged(runs, first.runs)
    })
  }, [first])
  useLive(TOPICS, ({ data }) => {
    const { runs } = data as { runs: Run[] }
    // Those of other filters stay out; the first page is read anew for those that come in.
    setKnown((all) =>
      merged(
        all,
        runs.filter(({ id }) => all.has(id)),
      ),
    )
  })
  useEffect(() => {
    setFrozen(isTop ? undefined : new Set(known.keys()))
  }, [isTop])
  const more = (): void => {
    const after = cursor.current
    if (after === undefined || isReading.current) return
    isReading.current = true
    const when = at.value ? { at: at.value } : {}
    client
      .get(reads.runs({ ...query, cursor: after }), when)
      .then((page) => {
        if (latest.current !== place) return
        cursor.current = page.next
        setKnown((runs) => merged(runs, page.runs))
        setFrozen((ids) => ids && new Set([...ids, ...page.runs.map(({ id }) => id)]))
      })
      .catch(() => {})
      .finally(() => {
        isReading.current = false
      })
  }
  const all = [...known.values()].toSorted(newestFirst)
  const rows = frozen ? all.filter(({ id }) => frozen.has(id)) : all
  return { rows, waiting: all.length - rows.length, showAll: () => setFrozen(undefined), more, setTop }
}

function merged(runs: ReadonlyMap<string, Run>, others: readonly Run[]): ReadonlyMap<string, Run> {
  return others.length === 0 ? runs : new Map([...runs, ...others.map((run) => [run.id, run] as const)])
}
