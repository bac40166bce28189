/** Limits: which limit holds things up? */
import type { JSX } from 'preact'
import { pathOf } from '../api/client.ts'
import * as reads from '../api/reads.ts'
import type { Asset, Limit, Limits as LimitsAnswer } from '../api/types.ts'
import { clock, count, counted, duration, shortId } from '../format.ts'
import { holderOf, type LimitRow, limitRows, limitsAnswer, openRunsOf } from '../limits.ts'
import { Act } from '../parts/act.tsx'
import { Answer } from '../parts/answer.tsx'
import { Bar, Card, Empty, RowLink, Segments } from '../parts/card.tsx'
import { Loaded, NotForAll, NotKept } from '../parts/notice.tsx'
import { address, href, isPast, setQuery } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { client, seesAll } from '../state/session.ts'

const EVERY_MS = 2000
const TURNS = 8
type Show = 'all' | 'full' | 'rate' | 'slots'

export default function Limits({ ids }: { ids: readonly string[] }): JSX.Element {
  const isAsked = seesAll.value
  const reading = useRead(isAsked ? reads.limits() : undefined, { everyMs: EVERY_MS })
  const assets = useRead(reads.assets(), { everyMs: 60_000 }).data?.assets ?? []
  if (!isAsked) return <NotForAll title="Limits" />
  if (isPast.value) return <NotKept title="Which limits were full is not kept." what="Limits hold only the present." />
  return (
    <div class="page">
      <Loaded reading={reading}>
        {(answer: LimitsAnswer) => (
          <View
            limits={answer.limits}
            rows={limitRows(answer.limits, assets)}
            assets={assets}
            bucket={ids[0]}
            reload={reading.reload}
          />
        )}
      </Loaded>
    </div>
  )
}

function View(props: {
  limits: readonly Limit[]
  rows: readonly LimitRow[]
  assets: readonly Asset[]
  bucket: string | undefined
  reload: () => void
}): JSX.Element {
  const { limits, rows, assets, reload } = props
  const show = (address.value.query.show ?? 'all') as Show
  const shown = rows.filter(({ isFull, kind }) => show === 'all' || (show === 'full' ? isFull : kind === show))
  const full = rows.filter(({ isFull }) => isFull)
  const bucket = props.bucket ?? full.toSorted((a, b) => b.waiting - a.waiting)[0]?.bucket ?? rows[0]?.bucket
  const limit = limits.find((one) => one.bucket === bucket)
  return (
    <>
      <div class="page-head">
        <Answer parts={limitsAnswer(rows)} />
        {rows.length === 0 ? null : (
          <div class="acts">
            <Segments
              label="Which limits"
              value={show}
              onChange={(value) => setQuery({ show: value === 'all' ? '' : value })}
              options={[
                ['all', `All ${count(rows.length)}`],
                ['full', `Full ${count(full.length)}`],
                ['rate', 'Rates'],
                ['slots', 'Slots'],
              ]}
            />
          </div>
        )}
      </div>
      {rows.length === 0 ? (
        <Card>
          <Empty>
            No limit has been used. <code>rateLimit</code> and <code>slots</code> of an asset name buckets; a bucket is
            here while it is in use.
          </Empty>
        </Card>
      ) : (
        <div class="columns limits">
          <Card>
            <div class="list-head limit-row" aria-hidden="true">
              <span>Bucket</span>
              <span>In use</span>
              <span class="number">Wait</span>
              <span class="number">Used by</span>
            </div>
            {shown.map((row) => (
              <Row row={row} isCurrent={row.bucket === bucket} />
            ))}
            {shown.length === 0 ? <Empty>No limit is like this.</Empty> : null}
          </Card>
          {limit ? <Side limit={limit} runs={openRunsOf(assets, limit.bucket)} reload={reload} /> : null}
        </div>
      )}
    </>
  )
}

function Row({ row, isCurrent }: { row: LimitRow; isCurrent: boolean }): JSX.Element {
  const by = row.usedBy.join(', ')
  return (
    <RowLink
      href={href(['limits', row.bucket], address.value.query.show ? { show: address.value.query.show } : {})}
      class="limit-row"
      isCurrent={isCurrent}
    >
      <span class="limit-name">
        <code class="strong cut">{row.bucket}</code>
        <span class="small faint">{row.text}</span>
      </span>
      <span class="limit-use">
        {row.pips ? <Pips held={row.pips} isFull={row.isFull} /> : <Bar parts={row.parts} />}
        <span class="small dimmed">{row.use}</span>
      </span>
      <span class="number strong limit-wait">
        {count(row.waiting)}
        <span class="hidden"> wait</span>
      </span>
      <span class="number small dimmed cut limit-by" title={by}>
        {by}
      </span>
    </RowLink>
  )
}

function Pips({ held, isFull }: { held: readonly boolean[]; isFull: boolean }): JSX.Element {
  return (
    <span class={`pips ${isFull ? 'full' : ''}`} aria-hidden="true">
      {held.map((isHeld) => (
        <i class={isHeld ? 'held' : ''} />
      ))}
    </span>
  )
}

function Side(props: { limit: Limit; runs: ReturnType<typeof openRunsOf>; reload: () => void }): JSX.Element {
  const { limit, runs, reload } = props
  const { bucket, rate, slots } = limit
  const taken = [
    ...(slots && slots.count > 0
      ? [`${counted(slots.count, 'slot')} that ${slots.count === 1 ? 'is' : 'are'} held`]
      : []),
    ...(rate && rate.waiting > 0
      ? [`${counted(rate.waiting, 'turn')} that ${rate.waiting === 1 ? 'is' : 'are'} promised`]
      : []),
  ]
  return (
    <Card
      class="side-card"
      title={<code>{bucket}</code>}
      side={
        <Act
          scope="administer"
          isSmall
          act={() => client.post(pathOf`/limits/${bucket}/reset`)}
          onDone={reload}
          done={`${bucket} is empty.`}
          confirm={{
            text: `All of ${bucket} is free at once${taken.length === 0 ? '' : `, beside ${taken.join(' and ')}`}. More may then run than the limit says.`,
            button: `Reset ${bucket}`,
          }}
        >
          Reset
        </Act>
      }
    >
      {slots ? <Slots slots={slots} /> : null}
      {rate ? <Turns rate={rate} runs={runs} /> : null}
    </Card>
  )
}

function Slots({ slots }: { slots: NonNullable<Limit['slots']> }): JSX.Element {
  const holders = slots.holders.toSorted((a, b) => b.ageMs - a.ageMs)
  return (
    <>
      <section class="part">
        <h3>{slots.count === 0 ? 'Nobody holds it' : `${count(slots.count)} of ${count(slots.limit)} held`}</h3>
        {holders.map((holder) => (
          <Holder holder={holder} />
        ))}
      </section>
      <section class="part">
        <h3>{slots.waiting === 0 ? 'Nobody waits' : `${count(slots.waiting)} wait, first come, first served`}</h3>
        <ol class="turns small">
          {slots.queue.map(({ process, waiting, by }, i) => (
            <>
              <li>
                <span class="faint">{i + 1}</span>
                <span class="cut" title={process}>
                  process <code>{shortId(process, 14)}</code>
                </span>
                <span class="number dimmed">{counted(waiting, 'caller')}</span>
              </li>
              {by.map((one) => (
                <li>
                  <span />
                  <Who by={one} />
                  <span />
                </li>
              ))}
            </>
          ))}
        </ol>
      </section>
    </>
  )
}

/** Asset, instance and run of a caller, as a link. */
function Who({ by }: { by: string }): JSX.Element {
  const { run, asset, index, text } = holderOf(by)
  return (
    <span class="cut">
      <code>{text}</code>
      {run && asset ? (
        <>
          {', run '}
          <a class="link" href={href(index === undefined ? ['runs', run] : ['runs', run, asset])} title={run}>
            <code>{shortId(run)}</code>
          </a>
        </>
      ) : null}
    </span>
  )
}

function Holder({ holder }: { holder: NonNullable<Limit['slots']>['holders'][number] }): JSX.Element {
  const { run, asset, index, text } = holderOf(holder.by)
  return (
    <div class="holder">
      <span class="cut">
        <code class="strong">{text}</code>
      </span>
      <span class="number">{duration(holder.ageMs)}</span>
      <span class="small faint cut">
        {run && asset ? (
          <a class="link" href={href(index === undefined ? ['runs', run] : ['runs', run, asset])} title={run}>
            run <code>{shortId(run)}</code>
          </a>
        ) : (
          'of no run'
        )}
        {holder.weight === 1 ? '' : `, ${count(holder.weight)} slots`}
      </span>
      <span class="number small faint">fence {holder.fence}</span>
    </div>
  )
}

function Turns(props: { rate: NonNullable<Limit['rate']>; runs: ReturnType<typeof openRunsOf> }): JSX.Element {
  const { rate, runs } = props
  const turns = rate.reservations.slice(0, TURNS)
  return (
    <section class="part">
      <h3>
        {rate.waiting === 0 ? 'Nobody waits' : `${counted(rate.waiting, 'token')} promised, first come, first served`}
      </h3>
      <p class="small dimmed">
        {rate.waiting === 0
          ? 'A start is granted at once.'
          : `Who asks now has a turn at ${clock(rate.nextTurn)}. Waiting uses no attempt.`}
      </p>
      <ol class="turns small">
        {turns.map(({ at, tokens }, i) => (
          <li>
            <span class="faint">{i + 1}</span>
            <span>{clock(at)}</span>
            <span class="number dimmed">{counted(tokens, 'token')}</span>
          </li>
        ))}
      </ol>
      {runs.length === 0 ? null : (
        <>
          <h3>Open runs that use it</h3>
          <ol class="turns small">
            {runs.slice(0, TURNS).map(({ asset, run }) => (
              <li>
                <span />
                <Who by={`${run}.${asset}`} />
              </li>
            ))}
          </ol>
          {runs.length > TURNS ? <p class="small faint">{count(runs.length - TURNS)} more.</p> : null}
        </>
      )}
    </section>
  )
}
