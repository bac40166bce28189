/** A scatter: will it finish, what fails, and why does it wait? */
import type { JSX } from 'preact'
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import type { ErrorGroup, Scatter as ScatterStatus } from '../api/types.ts'
import { count, counted, percent, rate } from '../format.ts'
import { Act } from '../parts/act.tsx'
import { Answer, Sentence } from '../parts/answer.tsx'
import { Bar, CountStrip, Tag } from '../parts/card.tsx'
import { Loaded, Notice } from '../parts/notice.tsx'
import { bytesOf, LARGE_TILE, MAP_MAX, TILE, writeRuns } from '../scatter/cells.ts'
import { Failures } from '../scatter/failures.tsx'
import { InstanceDrawer } from '../scatter/instance.tsx'
import { MapCard } from '../scatter/map-card.tsx'
import { Threshold, Waits } from '../scatter/outlook.tsx'
import type { MapView } from '../scatter/painter.ts'
import { isOfGroup, type Seen, scatterAnswer, wholeOf, withSeen } from '../scatter/said.ts'
import { barOf, type SegmentRow } from '../scatter/segments.ts'
import {
  CANCELLED,
  DONE,
  FAILED,
  GATE,
  RETRYING,
  RUNNING,
  stateName,
  stateNumber,
  titleOf,
  UI_STATES,
  WAITING,
} from '../scatter/states.ts'
import { addedUp, type LiveMap, useMap, useTiles } from '../scatter/use-map.ts'
import { shown } from '../state/clock.ts'
import { useKeys } from '../state/keys.ts'
import { address, go, href, isPast, pushQuery, setQuery } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { client } from '../state/session.ts'

const STATUS_MS = 2000
const ERRORS_MS = 3000
/** Until the rest of them is asked for. */
const UNREAD_MS = 250
const MARKED_MAX = 100_000

export default function Scatter({ ids }: { ids: readonly string[] }): JSX.Element {
  const [run = '', asset = ''] = ids
  return <Page key={`${run}.${asset}`} run={run} asset={asset} />
}

interface Ids {
  readonly run: string
  readonly asset: string
}

function Page({ run, asset }: Ids): JSX.Element {
  const id = `${run}.${asset}`
  const [size, setSize] = useState<number | undefined>(undefined)
  const isLarge = size !== undefined && size > MAP_MAX
  const isMapped = size !== undefined && !isLarge
  const map = useMap(id, isMapped)
  const [isOpen, setOpen] = useState(true)
  const status = useRead(reads.scatter(id), {
    on: isMapped ? { scatter: [id] } : {},
    ...(isOpen ? { everyMs: STATUS_MS } : {}),
  })
  const tiles = useTiles(id, isLarge, isOpen)
  useEffect(() => {
    if (!status.data) return
    setSize(wholeOf(status.data))
    setOpen(status.data.status === 'open')
  }, [status.data])
  const [seen, setSeen] = useState<readonly Seen[]>([])
  useEffect(() => {
    if (status.data && !isPast.value) setSeen(withSeen(seen, status.data, Date.now(), href))
  }, [status.data])
  if (status.problem?.status === 404 && status.problem.reason !== 'not_kept' && !status.data)
    return (
      <div class="page">
        <Answer
          parts={[
            { text: isPast.value ? `${asset} had no instances at this moment. ` : `${asset} has no instances yet. ` },
            { text: 'Its run', href: href(['runs', run]) },
          ]}
        />
      </div>
    )
  return (
    <div class="page scatter-page">
      <Loaded reading={status}>
        {(scatter) => (
          <>
            {status.problem ? null : isLarge ? <Notice reading={tiles} /> : <Notice reading={map.reading} />}
            <View
              scatter={scatter}
              run={run}
              asset={asset}
              map={map}
              tiles={isLarge ? (tiles.data?.tiles ?? []) : undefined}
              seen={seen}
              reload={status.reload}
            />
          </>
        )}
      </Loaded>
    </div>
  )
}

interface ViewProps extends Ids {
  readonly scatter: ScatterStatus
  readonly map: LiveMap
  /** Of a scatter that is too large for a map. */
  readonly tiles: readonly Tile[] | undefined
  readonly seen: readonly Seen[]
  readonly reload: () => void
}
interface Tile {
  readonly from: number
  readonly to: number
  readonly counts: readonly number[]
}

function View(props: ViewProps): JSX.Element {
  const { scatter, map, tiles, seen, asset } = props
  const { id } = scatter
  const { query } = address.value
  const whole = Math.max(wholeOf(scatter), tiles ? 0 : map.cells.length)
  const counts = (tiles && tiles.length > 0 ? addedUp(tiles) : map.counts) ?? countsOf(scatter)
  const { groups, isKnown, chosen, marked, choose } = useErrors(id, counts[FAILED] ?? 0, whole)
  const state = stateNumber(query.state)
  const lit = useMemo(() => ({ state, marked }), [state, marked])
  const said = scatterAnswer(scatter, groups, shown.value, href)
  const tileSize = tiles ? LARGE_TILE : TILE
  const hasTiles = whole > TILE
  const tile = numberOf(query.tile, Math.ceil(whole / tileSize))
  const index = numberOf(query.instance, scatter.stored)
  const { view, stateOf } = useView({ id, map, tiles, whole, tile: hasTiles ? tile : 0, tileSize })
  const rowOf = (n: number): SegmentRow => {
    const from = n * tileSize
    const to = Math.min(whole, from + tileSize)
    return { tile: n, from, to, counts: tiles?.[n]?.counts ?? map.cells.countsOf(from, to) }
  }
  useKeys(hasTiles && tile !== undefined ? { Escape: () => openTile(undefined) } : {})
  return (
    <>
      <div class="page-head">
        <div class="scatter-title">
          <div class="line">
            <h1>{asset}</h1>
            <Tag>{counted(whole, 'instance')}</Tag>
          </div>
          <p class="why">
            <b>
              <Sentence parts={said.first} />
            </b>
            <Sentence parts={said.more} />
          </p>
        </div>
        <Acts {...props} />
      </div>
      <Strip scatter={scatter} counts={counts} whole={whole} state={state} />
      <MapCard
        view={view}
        lit={lit}
        tileSize={tileSize}
        whole={whole}
        tile={hasTiles ? tile : undefined}
        hasTiles={hasTiles}
        isList={query.view === 'list'}
        chosen={index}
        rowOf={rowOf}
        stateOf={(instance) => stateOf(instance) ?? WAITING}
        isKnown={tiles ? tiles.length > 0 : map.counts !== undefined}
        isFiltered={state !== undefined || chosen !== undefined}
        onTile={openTile}
        onInstance={(instance) => setQuery({ instance: String(instance) })}
        onList={(isList) => setQuery({ view: isList ? 'list' : '' })}
        onClear={() => setQuery({ state: '', error: '' })}
      />
      <div class="scatter-below">
        <Failures groups={groups} failed={counts[FAILED] ?? 0} isKnown={isKnown} chosen={chosen} onChoose={choose} />
        <Threshold scatter={scatter} seen={seen} />
        <Waits scatter={scatter} seen={seen} />
      </div>
      {index === undefined ? null : (
        <InstanceDrawer
          key={index}
          scatter={scatter}
          index={index}
          state={stateOf(index)}
          onClose={() => setQuery({ instance: '' })}
          onError={errorShower(groups, (group) => {
            setQuery({ instance: '' })
            choose(group)
          })}
        />
      )}
    </>
  )
}

function openTile(tile: number | undefined): void {
  const query = { tile: tile === undefined ? '' : String(tile), instance: '' }
  // From tile to tile no step of the way back is left.
  if (tile !== undefined && address.value.query.tile !== undefined) setQuery(query)
  else pushQuery(query)
}

function errorShower(
  groups: readonly ErrorGroup[],
  show: (group: ErrorGroup) => void,
): ((error: { code: string; message: string }) => void) | undefined {
  if (groups.length === 0) return undefined
  return (error) => {
    const group = groups.find((one) => isOfGroup(one, error))
    if (group) show(group)
  }
}

/** Of an address: anything may stand there. */
function numberOf(text: string | undefined, below: number): number | undefined {
  const n = text === undefined || !/^\d+$/.test(text) ? Number.NaN : Number(text)
  return n < below ? n : undefined
}

/** Until there is a map. */
function countsOf(scatter: ScatterStatus): number[] {
  const counts: number[] = []
  counts[WAITING] = scatter.waiting
  counts[RUNNING] = scatter.leased
  counts[DONE] = scatter.succeeded
  counts[FAILED] = scatter.failed
  counts[RETRYING] = scatter.waitingForRetry
  counts[GATE] = scatter.suspended
  counts[CANCELLED] = scatter.cancelled
  return counts
}

interface ViewOf {
  readonly id: string
  readonly map: LiveMap
  readonly tiles: readonly Tile[] | undefined
  readonly whole: number
  readonly tile: number | undefined
  readonly tileSize: number
}

/** What the map shows, and the state of an instance as it knows it. */
function useView({ id, map, tiles, whole, tile, tileSize }: ViewOf): {
  view: MapView
  stateOf: (instance: number) => number | undefined
} {
  const { cells } = map
  const from = (tile ?? 0) * tileSize
  const to = Math.min(whole, from + tileSize)
  const isRange = tiles !== undefined && tile !== undefined
  const range = useRead(isRange ? reads.scatterMap(id, { from, to }) : undefined, { everyMs: STATUS_MS })
  const { data } = range
  const states = useMemo(() => {
    const read = new Uint8Array(isRange ? to - from : 0)
    if (data && data.from === from) writeRuns(bytesOf(data.runs), read, 0, () => {})
    return read
  }, [data, isRange, from, to])
  const view = useMemo((): MapView => {
    if (tiles === undefined)
      return tile === undefined ? { kind: 'tiles', cells, limit: whole } : { kind: 'cells', cells, from, to }
    if (tile === undefined) return { kind: 'summaries', tiles: tiles.map(({ counts }) => counts) }
    return { kind: 'range', states, from, to }
  }, [cells, tiles, tile, from, to, whole, states])
  const stateOf = (instance: number): number | undefined =>
    tiles === undefined ? cells.states[instance] : isRange && data ? states[instance - from] : undefined
  return { view, stateOf }
}

/** Groups of errors, and the instances of the one that is chosen. */
function useErrors(id: string, failed: number, whole: number) {
  const { error } = address.value.query
  const at = error === undefined || !/^\d+$/.test(error) ? undefined : Number(error)
  const reading = useRead(failed > 0 ? reads.scatterErrors(id) : undefined, {})
  const full = useRead(at === undefined ? undefined : reads.scatterErrors(id, { instances: MARKED_MAX }), {})
  const read = useRef(0)
  useEffect(() => {
    if (failed === 0 || !reading.data || isPast.value) return
    const timer = setTimeout(
      () => {
        read.current = Date.now()
        reading.reload()
        if (at !== undefined) full.reload()
      },
      Math.max(0, read.current + ERRORS_MS - Date.now()),
    )
    return () => clearTimeout(timer)
  }, [failed])
  // Many are read in several turns, each of which takes up what the one before has read.
  useEffect(() => {
    if (reading.data?.complete !== false) return
    const timer = setTimeout(reading.reload, UNREAD_MS)
    return () => clearTimeout(timer)
  }, [reading.data])
  const groups = failed > 0 ? (reading.data?.errors ?? []) : []
  const found = full.data?.errors.find(({ instances }) => at !== undefined && instances.includes(at))
  const chosen =
    at === undefined
      ? undefined
      : groups.find((group) => group.instances.includes(at) || (found && isOfGroup(group, found)))
  const marked = useMemo(() => {
    if (at === undefined) return undefined
    const bytes = new Uint8Array(whole)
    for (const instance of (found ?? chosen)?.instances ?? []) bytes[instance] = 1
    return bytes
  }, [at, found, found ? undefined : chosen, whole])
  const choose = (group: ErrorGroup | undefined): void =>
    setQuery({ error: group ? String(group.instances[0] ?? '') : '', state: '', tile: '' })
  return { groups, isKnown: reading.data !== undefined, chosen, marked, choose }
}

const STRIP = [DONE, RUNNING, RETRYING, GATE, WAITING, FAILED] as const

function Strip(props: {
  scatter: ScatterStatus
  counts: readonly number[]
  whole: number
  state: number | undefined
}): JSX.Element {
  const { scatter, counts, whole, state } = props
  const states = (counts[CANCELLED] ?? 0) > 0 ? [...STRIP.slice(0, -1), CANCELLED, FAILED] : STRIP
  const ended = (counts[DONE] ?? 0) + (counts[FAILED] ?? 0)
  return (
    <CountStrip
      counts={states.map((one) => ({
        name: titleOf(one),
        value: count(counts[one] ?? 0),
        state: UI_STATES[one] ?? 'wait',
      }))}
      chosen={state === undefined ? undefined : titleOf(state)}
      onChoose={(title) => {
        const chosen = states.find((one) => titleOf(one) === title)
        setQuery({ state: chosen === undefined ? '' : stateName(chosen), error: '' })
      }}
    >
      <div class="line">
        <span class="strip-value">{percent(ended, whole)}</span>
        <span class="small faint">ended{scatter.perSecond > 0 ? `, ${rate(scatter.perSecond)} a second` : ''}</span>
      </div>
      <Bar parts={barOf([...counts.slice(0, WAITING), Math.max(0, whole - ended), ...counts.slice(WAITING + 1)])} />
    </CountStrip>
  )
}

function Acts({ scatter, asset, reload }: ViewProps): JSX.Element {
  const { id, status, paused, pending, redrivable } = scatter
  const path = `/scatters/${encodeURIComponent(id)}`
  const isOpen = status === 'open'
  // An engine takes a moment to read what is stored.
  const soon = (): void => {
    for (const ms of [100, 500, 1500]) setTimeout(reload, ms)
  }
  const post = (act: string) => async (key: string) => await client.post(`${path}/${act}`, {}, { key })
  return (
    <div class="acts">
      {isOpen && !paused ? (
        <Act scope="operate" icon="pause" act={post('pause')} onDone={soon}>
          Pause
        </Act>
      ) : null}
      {isOpen && paused ? (
        <Act scope="operate" kind="primary" icon="play" act={post('resume')} onDone={soon}>
          Resume
        </Act>
      ) : null}
      {isOpen || redrivable > 0 ? (
        <span class={isOpen ? 'wide-only' : ''}>
          <Act
            scope="operate"
            icon="retry"
            isOff={isOpen}
            act={async (key) => {
              const { run } = await client.post<{ run: string }>(`${path}/redrive`, undefined, { key })
              go(['runs', run])
            }}
            done={`${asset} is redriven in a new run`}
          >
            {isOpen ? 'Redrive' : `Redrive ${count(redrivable)}`}
          </Act>
        </span>
      ) : null}
      {isOpen ? (
        <Act
          scope="operate"
          kind="danger"
          act={post('cancel')}
          onDone={soon}
          confirm={{
            text: `What runs is aborted, what waits never begins. ${asset} fails with cancelled. What has succeeded stays, and the rest can be redriven.`,
            button: `Cancel ${counted(pending, 'instance')}`,
          }}
        >
          Cancel
        </Act>
      ) : null}
    </div>
  )
}
