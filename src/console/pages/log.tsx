/** Log: what happened, in what order? */
import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import type { Fact } from '../api/types.ts'
import { count, moment, shortId, utc } from '../format.ts'
import { exactly, factId, factLine, factOf, factTone, KINDS, type LogShow, logAnswer, merged } from '../log.ts'
import { Answer } from '../parts/answer.tsx'
import { Card, Empty, Facts, Segments } from '../parts/card.tsx'
import { Drawer } from '../parts/drawer.tsx'
import { Icon } from '../parts/glyph.tsx'
import { VirtualList } from '../parts/list.tsx'
import { Loaded, NotForAll } from '../parts/notice.tsx'
import { Rail } from '../shell/rail.tsx'
import { shown } from '../state/clock.ts'
import { useOlder } from '../state/older.ts'
import { address, at, href, isPast, setAt, setQuery } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { client, seesAll } from '../state/session.ts'
import { stepFact } from '../state/step.ts'

const PAGE = 200
const FACTS = { facts: true } as const
const ROW = 32

export default function Log(): JSX.Element {
  return seesAll.value ? <View /> : <NotForAll title="Facts of the log" />
}

function View(): JSX.Element {
  const { query } = address.value
  const show = (query.show !== undefined && query.show in KINDS ? query.show : 'all') as LogShow
  const [isFollowing, setFollowing] = useState(true)
  const wanted = {
    limit: PAGE,
    ...(KINDS[show].length === 0 ? {} : { kind: KINDS[show] }),
    ...(query.run ? { run: query.run } : {}),
    ...(query.asset ? { asset: query.asset } : {}),
  }
  const reading = useRead(reads.log(wanted), isFollowing ? { on: FACTS } : {})
  const place = JSON.stringify([wanted, at.value?.getTime()])
  const older = useOlder(place, async (cursor) => {
    const page = await client.get(reads.log({ ...wanted, cursor }), at.value ? { at: at.value } : {})
    return { rows: page.facts, next: page.next }
  })
  const facts = merged(reading.data?.facts ?? [], older.rows)
  const next = older.rows.length > 0 ? older.next : reading.data?.next
  const [chosen, setChosen] = useState<Fact | undefined>(undefined)
  const when = at.value ? moment(at.value, shown.value, true) : undefined
  return (
    <div class="page log-page">
      <section class="card log-rail">
        <div class="line">
          <div class="log-answer">
            {reading.data ? <Answer parts={logAnswer(facts, next !== undefined, shown.value, when)} /> : null}
          </div>
          <span class="space" />
          <button type="button" class="button small" aria-label="One fact back" onClick={() => void stepFact(-1)}>
            <Icon name="left" />
          </button>
          <button
            type="button"
            class="button small"
            aria-label="One fact on"
            disabled={!isPast.value}
            onClick={() => void stepFact(1)}
          >
            <Icon name="right" />
          </button>
        </div>
        <Rail isLarge />
      </section>
      <div class="line log-tools">
        <Segments
          label="Which facts"
          value={show}
          onChange={(value) => setQuery({ show: value === 'all' ? '' : value })}
          options={[
            ['all', 'All'],
            ['runs', 'Runs'],
            ['assets', 'Assets'],
            ['scatters', 'Scatters'],
            ['gates', 'Gates'],
            ['starts', 'Starts'],
            ['failed', 'Failed'],
            ['refused', 'Refused'],
          ]}
        />
        <Field name="run" label="Run" />
        <Field name="asset" label="Asset" />
        <span class="space" />
        <button
          type="button"
          class="button small"
          aria-pressed={isFollowing}
          disabled={isPast.value}
          onClick={() => setFollowing(!isFollowing)}
        >
          <Icon name={isFollowing ? 'pause' : 'play'} />
          {isFollowing ? 'Follows' : 'Follow'}
        </button>
      </div>
      <Card class="log-card">
        <div class="list-head fact-row" aria-hidden="true">
          <span class="number">Sequence</span>
          <span>Time</span>
          <span>Fact</span>
          <span>Of</span>
          <span>Run</span>
        </div>
        <Loaded reading={reading}>
          {() =>
            facts.length === 0 ? (
              <Empty>
                No facts of this kind before this moment. Facts of runs that ended a while ago are with the runs.
              </Empty>
            ) : (
              <VirtualList
                label="Facts, newest first"
                class="log-list"
                rows={facts}
                rowHeight={ROW}
                keyOf={factId}
                onEnd={() => {
                  if (next !== undefined) void older.read(next)
                }}
                row={(fact, style) => (
                  <Row
                    fact={fact}
                    style={style}
                    isCurrent={chosen !== undefined && factId(chosen) === factId(fact)}
                    onOpen={() => setChosen(fact)}
                  />
                )}
              />
            )
          }
        </Loaded>
      </Card>
      {chosen ? <FactDrawer key={factId(chosen)} fact={chosen} onClose={() => setChosen(undefined)} /> : null}
    </div>
  )
}

function Field({ name, label }: { name: 'run' | 'asset'; label: string }): JSX.Element {
  return (
    <input
      type="text"
      class="log-field"
      aria-label={`Only of this ${name}`}
      placeholder={`${label}: any`}
      autocomplete="off"
      spellcheck={false}
      value={address.value.query[name] ?? ''}
      onChange={(event) => setQuery({ [name]: event.currentTarget.value.trim() })}
    />
  )
}

function Row(props: {
  fact: Fact
  style: { top: string; height: string }
  isCurrent: boolean
  onOpen: () => void
}): JSX.Element {
  const { fact, style, isCurrent, onOpen } = props
  const tone = factTone(fact.kind)
  const { run } = fact.ids
  return (
    <button
      type="button"
      class={`list-row fact-row ${isCurrent ? 'current' : ''}`}
      style={style}
      data-nav
      onClick={onOpen}
    >
      <span class="number faint">{fact.seq}</span>
      <span class="dimmed" title={utc(fact.at)}>
        {exactly(fact.at)}
      </span>
      <span class={`cut ${tone ? `tone-${tone}` : ''}`}>{fact.kind}</span>
      <span class="cut">
        {factOf(fact)} <span class="faint">{factLine(fact)}</span>
      </span>
      <span class="faint cut">{run === undefined ? '' : shortId(run)}</span>
    </button>
  )
}

function FactDrawer({ fact, onClose }: { fact: Fact; onClose: () => void }): JSX.Element {
  const { run, pipeline, asset } = fact.ids
  return (
    <Drawer title={<code>{fact.kind}</code>} label={`Fact ${fact.seq}`} onClose={onClose}>
      <section>
        <Facts
          of={[
            ['Sequence', `${count(fact.seq)} of shard ${fact.shard}`],
            ['Time', utc(fact.at)],
            ...Object.entries(fact.ids).map(([name, id]): [string, JSX.Element] => [name, <code>{id}</code>]),
          ]}
        />
        <div class="line fact-acts">
          <button type="button" class="button small" onClick={() => setAt(new Date(fact.at))}>
            Go to this moment
          </button>
          {run === undefined ? null : (
            <a class="button small" href={href(['runs', run])}>
              Run
            </a>
          )}
          {pipeline === undefined || asset === undefined ? null : (
            <a class="button small" href={href(['assets', pipeline, asset])}>
              Asset
            </a>
          )}
        </div>
      </section>
      <section>
        <h3>Data</h3>
        <pre>{fact.preview === undefined ? JSON.stringify(fact.data, undefined, 2) : `${fact.preview}\n…`}</pre>
      </section>
    </Drawer>
  )
}
