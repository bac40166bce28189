/** One gate: what is asked, what happens at its deadline, and the answer. */
import type { JSX } from 'preact'
import { useRef, useState } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import type { Fact, Gate, Why } from '../api/types.ts'
import { clock, count, moment, utc, valueText } from '../format.ts'
import { factWords, gateAsk, gateDetails, gateOutcome, refusalWords, refusedCount, remaining } from '../gates.ts'
import { Act } from '../parts/act.tsx'
import { Facts, Time } from '../parts/card.tsx'
import { State } from '../parts/glyph.tsx'
import { Loaded } from '../parts/notice.tsx'
import { plain } from '../plain.ts'
import { shown } from '../state/clock.ts'
import { useKeys } from '../state/keys.ts'
import { href, isPast } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { client, hasKey, may, me, seesAll } from '../state/session.ts'

const FACTS = 50
/** All that is stored about a gate. */
const KINDS = ['gate.created', 'gate.extended', 'gate.timer_fired', 'gate.deadline_closed', 'gate.resolved']

export function GateView({ id }: { id: string }): JSX.Element {
  const reading = useRead(reads.gate(id), { on: { gates: true }, restMs: 500 })
  return (
    <div class="gate-view">
      <Loaded reading={reading}>{(gate) => <View gate={gate} reload={reading.reload} />}</Loaded>
    </div>
  )
}

function View({ gate, reload }: { gate: Gate; reload: () => void }): JSX.Element {
  const now = shown.value
  const isWaiting = gate.status === 'waiting'
  const topics = { run: [gate.run] }
  const why = useRead(reads.why({ run: gate.run, asset: gate.asset }), { on: topics, restMs: 2000 }).data
  const details = gateDetails(gate)
  const outcome = gateOutcome(gate)
  return (
    <>
      <div>
        <a class="narrow-only link" href={href(['inbox'])}>
          All gates
        </a>
        <h2 class="gate-title">{gateAsk(gate)}</h2>
        <p class="why">
          {isWaiting ? (
            <>
              {gate.deadline === undefined ? (
                'No deadline'
              ) : (
                <Time of={gate.deadline} text={capital(remaining(gate, now))} />
              )}
              {consequence(gate, why)}.{' '}
            </>
          ) : (
            <>
              {outcome.text}
              {gate.endedAt === undefined ? '' : ` at ${moment(gate.endedAt, now, true)}`}
              {gate.signal?.source ? ` by ${gate.signal.source}` : ''}.{' '}
            </>
          )}
          Opened <Time of={gate.openedAt} text={moment(gate.openedAt, now, true)} /> by{' '}
          <a href={href(['runs', gate.run], { asset: gate.asset })}>
            <code>{gate.asset}</code> of its run
          </a>
          .
        </p>
      </div>
      {details.length === 0 ? null : <Facts of={details.map(([name, value]) => [name, value])} />}
      {isWaiting ? <Answering gate={gate} reload={reload} /> : <Answered gate={gate} />}
      <Refused gate={gate} now={now} />
      <History gate={gate} now={now} />
    </>
  )
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

/** What is so when nobody answers. */
function consequence(gate: Gate, why: Why | undefined): string {
  if (gate.retriesLeft > 0) return `, then it asks again, ${gate.retriesLeft} more times`
  const said = why ? /without one, (it [^.;]+)/.exec(why.verdict.message)?.[1] : undefined
  return said === undefined ? '' : `, then ${said}`
}

function Answering({ gate, reload }: { gate: Gate; reload: () => void }): JSX.Element {
  const [text, setText] = useState('')
  const [duration, setDuration] = useState('')
  const approve = useRef<() => void>(undefined)
  const reject = useRef<() => void>(undefined)
  useKeys({ a: () => approve.current?.(), r: () => reject.current?.() })
  const path = `/gates/${encodeURIComponent(gate.id)}`
  const signal = (payload: unknown) => async (key: string) => {
    await client.post(`${path}/signal`, { payload }, { key })
  }
  const decision = (approved: boolean) => {
    const comment = text.trim()
    return signal({ approved, ...(comment === '' ? {} : { comment }) })
  }
  const isApproval = gate.kind === 'approval'
  if (!may('operate')) return <p class="faint">This key may look, and not answer.</p>
  return (
    <div class="answering">
      <label for="gate-text">{isApproval ? 'Comment' : 'Payload as JSON'}</label>
      <textarea
        id="gate-text"
        class={isApproval ? '' : 'mono'}
        placeholder={isApproval ? 'Optional. Recorded with your answer.' : '{ "ok": true }'}
        spellcheck={isApproval}
        value={text}
        disabled={isPast.value}
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <div class="gate-acts">
        {isApproval ? (
          <>
            <Act scope="operate" kind="primary" hint="a" press={approve} act={decision(true)} onDone={reload}>
              Approve
            </Act>
            <Act scope="operate" hint="r" press={reject} act={decision(false)} onDone={reload}>
              Reject
            </Act>
          </>
        ) : (
          <Act scope="operate" kind="primary" act={(key) => signal(payloadOf(text))(key)} onDone={reload}>
            Send
          </Act>
        )}
        <span class="space" />
        <input
          type="text"
          class="extend-by"
          aria-label="Extend to, from now on"
          placeholder="2h"
          value={duration}
          disabled={isPast.value}
          onInput={(event) => setDuration(event.currentTarget.value)}
        />
        <Act
          scope="operate"
          isOff={duration.trim() === ''}
          act={async () => {
            await client.post(`${path}/extend`, { duration: duration.trim() })
            setDuration('')
          }}
          onDone={reload}
        >
          Extend
        </Act>
        <Act
          scope="operate"
          kind="danger"
          act={() => client.post(`${path}/cancel`, text.trim() === '' ? {} : { reason: text.trim() })}
          confirm={{
            text: 'Its asset is cancelled, or its instance fails. This cannot be undone.',
            button: 'Cancel 1 gate',
          }}
          onDone={reload}
        >
          Cancel gate
        </Act>
      </div>
      <p class="faint small">
        Recorded as {hasKey.value ? me.value?.key : 'local'}. The first answer counts. Whoever answers later sees that
        there was one.
      </p>
    </div>
  )
}

/** Nothing typed: no payload. */
function payloadOf(text: string): unknown {
  if (text.trim() === '') return undefined
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Error(`The payload is not JSON: ${error instanceof Error ? error.message : ''}`)
  }
}

function Answered({ gate }: { gate: Gate }): JSX.Element {
  const outcome = gateOutcome(gate)
  const { payload } = gate.signal ?? {}
  const facts: (readonly [string, string])[] =
    typeof payload === 'object' && payload !== null && !Array.isArray(payload)
      ? Object.entries(payload).map(([name, value]) => [name, valueText(value)])
      : payload === undefined
        ? []
        : [['payload', valueText(payload)]]
  return (
    <div class="stack">
      <div class="line">
        <State state={outcome.state} label="" />
        <b>{outcome.text}</b>
      </div>
      <Facts of={[...facts, ...(gate.reason === undefined ? [] : [['Reason', gate.reason] as const])]} />
    </div>
  )
}

/** Attempts to answer it that were refused. Not kept for the past. */
function Refused({ gate, now }: { gate: Gate; now: number }): JSX.Element | null {
  const { refused } = gate
  if (!refused) return null
  const older = refused.count - refused.last.length
  return (
    <div>
      <h3>{refusedCount(gate)}</h3>
      <ul class="gate-history">
        {refused.last.map(({ at, reason, source, by }) => (
          <li>
            <When at={at} now={now} />
            <State state="fail" label="" />
            <span>
              {refusalWords(reason)}
              {(source ?? by) === undefined ? '' : `, from ${source ?? by}`}
            </span>
          </li>
        ))}
      </ul>
      {older > 0 ? <p class="faint small">{count(older)} more are only counted.</p> : null}
    </div>
  )
}

function When({ at, now }: { at: string; now: number }): JSX.Element {
  return (
    <time dateTime={at} title={utc(at)} class="faint">
      {new Date(at).toDateString() === new Date(now).toDateString() ? clock(at) : moment(at, now)}
    </time>
  )
}

/** Everything that is stored about it; a key of few assets sees when it was opened and ended. */
function History({ gate, now }: { gate: Gate; now: number }): JSX.Element {
  const reading = useRead(seesAll.value ? reads.log({ run: gate.run, kind: KINDS, limit: FACTS }) : undefined, {
    on: { gates: true },
  })
  const own = (reading.data?.facts ?? [])
    .filter(({ ids }) => ids.asset === gate.asset && gate.id.endsWith(`.${ids.gate}`))
    .toReversed()
  const opened: Pick<Fact, 'at' | 'kind'> = { at: gate.openedAt, kind: 'gate.created' }
  const facts: readonly Pick<Fact, 'at' | 'kind' | 'data'>[] = own.length > 0 ? own : [opened]
  return (
    <div>
      <h3>What happened</h3>
      <ul class="gate-history">
        {facts.map((fact) => {
          const { text, state } = factWords(fact)
          return (
            <li>
              <When at={fact.at} now={now} />
              <State state={state} label="" />
              <span>{plain(text, now)}</span>
            </li>
          )
        })}
      </ul>
    </div>
  )
}
