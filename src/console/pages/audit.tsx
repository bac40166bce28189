/** Audit: who did what? */
import type { JSX } from 'preact'
import * as reads from '../api/reads.ts'
import type { AuditEntry } from '../api/types.ts'
import { AUDIT_KINDS, type AuditShow, auditAnswer, auditPlace } from '../audit.ts'
import { moment } from '../format.ts'
import { Answer } from '../parts/answer.tsx'
import { Card, Empty, Segments, Time } from '../parts/card.tsx'
import { VirtualList } from '../parts/list.tsx'
import { Loaded, NotForAll } from '../parts/notice.tsx'
import { shown } from '../state/clock.ts'
import { useOlder } from '../state/older.ts'
import { address, at, href, setQuery } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { client, seesAll } from '../state/session.ts'

const PAGE = 100
const ROW = 32
const EVERY_MS = 15_000

export default function Audit(): JSX.Element {
  return seesAll.value ? <View /> : <NotForAll title="Who did what" />
}

function View(): JSX.Element {
  const { by = '', show: given = 'all' } = address.value.query
  const show = (given in AUDIT_KINDS ? given : 'all') as AuditShow
  const kind = AUDIT_KINDS[show]
  const wanted = { limit: PAGE, ...(kind.length === 0 ? {} : { kind }), ...(by === '' ? {} : { by }) }
  const reading = useRead(reads.audit(wanted), { everyMs: EVERY_MS })
  const place = JSON.stringify([wanted, at.value?.getTime()])
  const older = useOlder(place, async (cursor) => {
    const page = await client.get(reads.audit({ ...wanted, cursor }), at.value ? { at: at.value } : {})
    return { rows: page.entries, next: page.next }
  })
  const newest = reading.data?.entries ?? []
  const known = new Set(newest.map(auditPlace))
  const entries = [...newest, ...older.rows.filter((entry) => !known.has(auditPlace(entry)))]
  const next = older.rows.length > 0 ? older.next : reading.data?.next
  return (
    <div class="page log-page">
      <div class="page-head">{reading.data ? <Answer parts={auditAnswer(entries, shown.value)} /> : null}</div>
      <div class="line log-tools">
        <Segments
          label="Which acts"
          value={show}
          onChange={(value) => setQuery({ show: value === 'all' ? '' : value })}
          options={[
            ['all', 'All'],
            ['runs', 'Runs'],
            ['gates', 'Gates'],
            ['scatters', 'Scatters'],
            ['schedules', 'Schedules'],
            ['refused', 'Refused'],
            ['code', 'Code'],
          ]}
        />
        <input
          type="text"
          class="log-field"
          aria-label="Only what this one did"
          placeholder="Who: any"
          autocomplete="off"
          spellcheck={false}
          value={by}
          onChange={(event) => setQuery({ by: event.currentTarget.value.trim() })}
        />
      </div>
      <Card class="log-card">
        <div class="list-head audit-row" aria-hidden="true">
          <span>Time</span>
          <span>Who</span>
          <span>Fact</span>
          <span>Of</span>
        </div>
        <Loaded reading={reading}>
          {() =>
            entries.length === 0 ? (
              <Empty>Nobody did anything of this kind before this moment.</Empty>
            ) : (
              <VirtualList
                label="Acts, newest first"
                class="log-list"
                rows={entries}
                rowHeight={ROW}
                keyOf={auditPlace}
                onEnd={() => {
                  if (next !== undefined) void older.read(next)
                }}
                row={(entry, style) => <Row entry={entry} style={style} />}
              />
            )
          }
        </Loaded>
      </Card>
    </div>
  )
}

function Row({ entry, style }: { entry: AuditEntry; style: { top: string; height: string } }): JSX.Element {
  const { at: time, by, kind, what, detail = '', run } = entry
  const cells = (
    <>
      <span class="dimmed">
        <Time of={time} text={moment(time, shown.value)} />
      </span>
      <span class="cut strong" title={by}>
        {by}
      </span>
      <span class="cut">{kind}</span>
      <span class="cut" title={`${what} ${detail}`}>
        {what} <span class="faint">{detail}</span>
      </span>
    </>
  )
  return run === undefined ? (
    <div class="list-row audit-row" style={style}>
      {cells}
    </div>
  ) : (
    <a class="list-row audit-row" style={style} href={href(['runs', run])} data-nav>
      {cells}
    </a>
  )
}
