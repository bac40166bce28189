/** What the code of a run logged: a long list that follows while the run is open. */
import type { JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import type { LogLine } from '../api/types.ts'
import { count, utc } from '../format.ts'
import { exactly } from '../log.ts'
import { Card, Empty, Facts, Segments } from '../parts/card.tsx'
import { Drawer } from '../parts/drawer.tsx'
import { Icon } from '../parts/glyph.tsx'
import { VirtualList } from '../parts/list.tsx'
import { LEVELS, messageLine, NOTHING_READ, placeOf, toneOf, withPage } from '../run-logs.ts'
import { useLive } from '../state/live.ts'
import { address, isPast, setQuery } from '../state/place.ts'
import { client } from '../state/session.ts'

const PAGE = 500
const ROW = 26

export function RunLogsCard({ id, assets }: { id: string; assets: readonly string[] }): JSX.Element {
  const { logs = '', instance = '', level = 'debug' } = address.value.query
  const asset = assets.includes(logs) ? logs : ''
  const index = asset !== '' && /^\d+$/.test(instance) ? instance : ''
  const least = LEVELS.find((one) => one === level) ?? 'debug'
  const place = JSON.stringify([id, asset, index, least])
  const [isFollowing, setFollowing] = useState(false)
  const [chosen, setChosen] = useState<LogLine | undefined>(undefined)
  const { lines, left, more, isFailed, read } = useLines(place, (cursor, signal) => {
    const query = {
      limit: PAGE,
      level: least,
      ...(cursor === undefined ? {} : { cursor }),
      ...(asset === '' ? {} : { asset }),
      ...(index === '' ? {} : { instance: index }),
    }
    return client.get(reads.runLogs(id, query), { signal })
  })
  // Who follows reads on to the end; else the end of the list does.
  useLive({ logs: [id] }, () => {
    if (isFollowing || !more) read()
  })
  useEffect(() => {
    if (isFollowing && more) read()
  }, [isFollowing, more, lines.length])
  if (isPast.value)
    return <Card title="Logs">{<Empty>Logs are not kept by moment. Go to now to see them.</Empty>}</Card>
  return (
    <Card
      title="Logs"
      side={
        <button
          type="button"
          class="button small"
          aria-pressed={isFollowing}
          onClick={() => setFollowing(!isFollowing)}
        >
          <Icon name={isFollowing ? 'pause' : 'play'} />
          {isFollowing ? 'Follows' : 'Follow'}
        </button>
      }
    >
      <div class="line log-tools run-log-tools">
        <Segments
          label="From which level on"
          value={least}
          options={LEVELS.map((one) => [one, one] as const)}
          onChange={(value) => setQuery({ level: value === 'debug' ? '' : value })}
        />
        <select
          class="log-field"
          aria-label="Of which asset"
          value={asset}
          onChange={(event) => setQuery({ logs: event.currentTarget.value, instance: '' })}
        >
          <option value="">All assets</option>
          {assets.map((one) => (
            <option value={one}>{one}</option>
          ))}
        </select>
        <input
          type="text"
          class="log-field"
          inputMode="numeric"
          aria-label="Only of this instance"
          placeholder="Instance: any"
          autocomplete="off"
          disabled={asset === ''}
          value={index}
          onChange={(event) => setQuery({ instance: event.currentTarget.value.trim() })}
        />
      </div>
      {lines.length === 0 ? (
        <Empty>{isFailed ? 'The logs cannot be read now.' : more ? 'Reading …' : 'Nothing was logged.'}</Empty>
      ) : (
        <VirtualList
          label="Lines, oldest first"
          class="run-log-list"
          rows={lines}
          rowHeight={ROW}
          keyOf={(line) => `${line.at} ${line.worker} ${line.asset} ${line.index} ${line.message}`}
          isAtEnd={isFollowing}
          onEnd={() => {
            if (more) read()
          }}
          row={(line, style) => (
            <button
              type="button"
              class={`list-row run-log-row ${chosen === line ? 'current' : ''}`}
              style={style}
              data-nav
              onClick={() => setChosen(line)}
            >
              <span class="dimmed" title={utc(line.at)}>
                {exactly(line.at)}
              </span>
              <span class={toneOf(line) ? `tone-${toneOf(line)}` : 'faint'}>{line.level}</span>
              <span class="cut faint">{placeOf(line)}</span>
              <span class="cut">{messageLine(line)}</span>
            </button>
          )}
        />
      )}
      {left > 0 ? <p class="pad faint small">{count(left)} earlier lines are not shown any more.</p> : null}
      {chosen ? <LineDrawer line={chosen} onClose={() => setChosen(undefined)} /> : null}
    </Card>
  )
}

/** All that was read of a place, in order. `read` reads the next page, one at a time. */
function useLines(
  place: string,
  page: (
    cursor: string | undefined,
    signal: AbortSignal,
  ) => ReturnType<typeof client.get<Parameters<typeof withPage>[1]>>,
) {
  const [state, setState] = useState({ of: place, read: NOTHING_READ, isFailed: false })
  const now = state.of === place ? state : { of: place, read: NOTHING_READ, isFailed: false }
  const latest = useRef(now)
  latest.current = now
  const leave = useRef<AbortController | undefined>(undefined)
  const read = (): void => {
    if (leave.current) return
    const asking = new AbortController()
    leave.current = asking
    page(latest.current.read.next, asking.signal).then(
      (found) => {
        if (asking.signal.aborted) return
        leave.current = undefined
        const { read: before } = latest.current
        setState({ of: place, read: withPage(before, found), isFailed: false })
      },
      () => {
        if (asking.signal.aborted) return
        leave.current = undefined
        setState({ ...latest.current, isFailed: true })
      },
    )
  }
  useEffect(() => {
    read()
    return () => {
      leave.current?.abort()
      leave.current = undefined
    }
  }, [place])
  return { ...now.read, isFailed: now.isFailed, read }
}

function LineDrawer({ line, onClose }: { line: LogLine; onClose: () => void }): JSX.Element {
  const { at, level, message, fields, asset, partition, phase, attempt, index, key, worker } = line
  return (
    <Drawer title={level} label={`Line of ${asset}`} onClose={onClose}>
      <section>
        <pre>{message}</pre>
        <Facts
          of={[
            ['Time', utc(at)],
            ['Asset', <code>{asset}</code>],
            ...(partition === undefined ? [] : [['Partition', <code>{partition}</code>] as const]),
            ['Code', `${phase}, attempt ${attempt}`],
            ...(index === undefined
              ? []
              : [['Instance', String(index)] as const, ['Key', <code>{JSON.stringify(key)}</code>] as const]),
            ['Worker', <code>{worker}</code>],
          ]}
        />
      </section>
      {fields ? (
        <section>
          <h3>Fields</h3>
          <pre>{JSON.stringify(fields, undefined, 2).replaceAll('\\n', '\n')}</pre>
        </section>
      ) : null}
    </Drawer>
  )
}
