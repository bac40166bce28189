/** Inbox: what must I decide, and by when? */
import type { JSX } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { inboxAnswer } from '../answers.ts'
import * as reads from '../api/reads.ts'
import type { Fact, Gate } from '../api/types.ts'
import { count, moment } from '../format.ts'
import { gateAsk, gateIdOf, leftOf, refusedCount } from '../gates.ts'
import { Answer } from '../parts/answer.tsx'
import { Empty, RowLink, Segments } from '../parts/card.tsx'
import { State } from '../parts/glyph.tsx'
import { Notice } from '../parts/notice.tsx'
import { shown } from '../state/clock.ts'
import { useKeys } from '../state/keys.ts'
import { address, go, href, setQuery } from '../state/place.ts'
import { type Reading, useRead } from '../state/read.ts'
import { seesAll } from '../state/session.ts'
import { GateView } from './gate.tsx'

const MOST = 500
const ANSWERED = 100
const TOPICS = { gates: true } as const

type Show = 'people' | 'machines' | 'answered'

export default function Inbox({ ids }: { ids: readonly string[] }): JSX.Element {
  const { show = 'people', at = '' } = address.value.query
  const reading = useRead(reads.gates({ limit: MOST }), { on: TOPICS, restMs: 500 })
  const all = reading.data?.gates ?? []
  const people = all.filter(({ kind }) => kind === 'approval')
  const machines = all.filter(({ kind }) => kind !== 'approval')
  const answered = useRead(
    show === 'answered' && seesAll.value ? reads.log({ kind: 'gate.resolved', limit: ANSWERED }) : undefined,
    { on: TOPICS },
  )
  const listed = show === 'machines' ? machines : people
  const gateIds =
    show === 'answered'
      ? (answered.data?.facts ?? []).flatMap((fact) => gateIdOf(fact) ?? [])
      : listed.map(({ id }) => id)
  const [chosen] = ids
  const first = useFirst(`${show} ${at}`, show === 'answered' ? undefined : gateIds[0])
  const current = chosen ?? first
  const now = shown.value
  const move = (by: number): void => {
    const next = gateIds[Math.max(0, gateIds.indexOf(current ?? '') + by)]
    if (next !== undefined) go(['inbox', next], address.value.query)
  }
  useKeys({ j: () => move(1), k: () => move(-1) })
  const isMore = reading.data?.next !== undefined
  const options: readonly (readonly [Show, string])[] = [
    ['people', `For people ${count(people.length)}`],
    ['machines', `For machines ${count(machines.length)}`],
    ...(seesAll.value ? [['answered', 'Answered'] as const] : []),
  ]
  return (
    <div class={`page-full inbox ${chosen === undefined ? '' : 'is-chosen'}`}>
      <div class="inbox-head">
        <div class="page-head">{reading.data ? <Answer parts={inboxAnswer(people, isMore, now)} /> : null}</div>
        <div class="page-tools">
          <Segments
            label="Which gates"
            options={options}
            value={show as Show}
            onChange={(value) => setQuery({ show: value === 'people' ? '' : value })}
          />
          <span class="space" />
          <span class="small faint wide-only">{show === 'answered' ? 'newest first' : 'soonest deadline first'}</span>
        </div>
        <Notice reading={show === 'answered' ? (answered as Reading<unknown>) : reading} />
      </div>
      <div class="split">
        <section class="split-list" aria-label="Gates">
          {show === 'answered'
            ? (answered.data?.facts ?? []).map((fact) => <AnsweredRow fact={fact} now={now} current={current} />)
            : listed.map((gate) => <GateRow gate={gate} now={now} isCurrent={gate.id === current} />)}
          {reading.data && gateIds.length === 0 && (show !== 'answered' || answered.data) ? (
            <Empty>
              {show === 'people'
                ? 'Nobody waits for you.'
                : show === 'machines'
                  ? 'No gate waits for a machine.'
                  : 'No answer is on the log.'}
            </Empty>
          ) : null}
          {show === 'people' && machines.length > 0 ? <Machines gates={machines} isMore={isMore} /> : null}
        </section>
        <section class="split-detail" aria-label="Gate">
          {current === undefined ? null : <GateView key={current} id={current} />}
        </section>
      </div>
    </div>
  )
}

/**
 * The gate that was first when the list was opened. It stays open when it is answered, or when
 * another one comes before it: a key must not answer what nobody has read.
 */
function useFirst(list: string, first: string | undefined): string | undefined {
  const kept = useRef({ list, id: first })
  if (kept.current.list !== list) kept.current = { list, id: first }
  kept.current.id ??= first
  return kept.current.id
}

function GateRow({ gate, now, isCurrent }: { gate: Gate; now: number; isCurrent: boolean }): JSX.Element {
  const left = leftOf(gate, now)
  return (
    <RowLink href={href(['inbox', gate.id], address.value.query)} class="inbox-row" isCurrent={isCurrent}>
      <Follow isCurrent={isCurrent} />
      <State state="gate" label="" />
      <span class="cut strong">{gateAsk(gate)}</span>
      <span class={`small ${left.isUrgent ? 'tone-fail strong' : 'dimmed'}`}>{left.text}</span>
      <span class="second cut">
        {gate.asset}
        {gate.index === undefined ? '' : `, instance ${count(gate.index)}`}
        {gate.retriesLeft > 0 ? ` · asks again ${gate.retriesLeft} more times` : ''}
        {gate.refused ? <span class="tone-fail"> · {refusedCount(gate)}</span> : null}
      </span>
    </RowLink>
  )
}

/** Keeps the chosen row in view. */
function Follow({ isCurrent }: { isCurrent: boolean }): null {
  useEffect(() => {
    if (isCurrent) document.querySelector('.inbox-row.current')?.scrollIntoView({ block: 'nearest' })
  }, [isCurrent])
  return null
}

function AnsweredRow({
  fact,
  now,
  current,
}: {
  fact: Fact
  now: number
  current: string | undefined
}): JSX.Element | null {
  const id = gateIdOf(fact)
  if (id === undefined) return null
  return (
    <RowLink href={href(['inbox', id], address.value.query)} class="inbox-row" isCurrent={id === current}>
      <State state="done" label="" />
      <span class="cut strong">{fact.ids.asset}</span>
      <span class="small dimmed">{moment(fact.at, now)}</span>
      <span class="second cut">
        <code>{fact.ids.run}</code>
      </span>
    </RowLink>
  )
}

function Machines({ gates, isMore }: { gates: readonly Gate[]; isMore: boolean }): JSX.Element {
  const assets = [...new Set(gates.map(({ asset }) => asset))]
  return (
    <p class="inbox-machines">
      {isMore ? 'More than ' : ''}
      {count(gates.length)} {gates.length === 1 ? 'gate waits' : 'gates wait'} for a machine (
      <code>{assets.slice(0, 3).join(', ')}</code>). Nobody needs to act.
    </p>
  )
}
