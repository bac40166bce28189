/** Home: does anything need me? */
import type { JSX } from 'preact'
import { heldBy, homeAnswer, waitsFor } from '../answers.ts'
import type { Gate, Home as HomeAnswer, Run, RunExplained, Schedule } from '../api/types.ts'
import { count, duration, moment, rate, relative } from '../format.ts'
import { gateAsk, leftOf } from '../gates.ts'
import { Answer } from '../parts/answer.tsx'
import { Bar, Card, Empty, RowLink, Time } from '../parts/card.tsx'
import { AreaChart } from '../parts/chart.tsx'
import { State } from '../parts/glyph.tsx'
import { Loaded } from '../parts/notice.tsx'
import { plain } from '../plain.ts'
import { failureOf, progressOf } from '../runs.ts'
import { shown } from '../state/clock.ts'
import { useOverview } from '../state/overview.ts'
import { href } from '../state/place.ts'
import { runState } from '../words.ts'

const SHOWN = 6
const FAILED_SHOWN = 4

export default function Home(): JSX.Element {
  const reading = useOverview()
  return (
    <div class="page">
      <Loaded reading={reading}>{(home) => <View home={home} />}</Loaded>
    </div>
  )
}

function View({ home }: { home: HomeAnswer }): JSX.Element {
  const { runs, gates, failed, due, throughput } = home
  const isNew =
    runs.open === 0 &&
    failed.length === 0 &&
    gates.waiting === 0 &&
    (throughput ?? []).every(({ facts }) => facts === 0)
  return (
    <>
      <div class="page-head">
        <Answer parts={homeAnswer(home, shown.value, href)} />
      </div>
      {/* The last minute is not over. */}
      {throughput ? <Throughput home={home} points={throughput.map(({ facts }) => facts).slice(0, -1)} /> : null}
      <div class="columns">
        <div class="stack">
          <Card title="Running" side={<a href={href(['runs'])}>All runs</a>}>
            {runs.shown.map((run) => (
              <RunRow run={run} home={home} />
            ))}
            {runs.shown.length > 0 ? null : isNew ? (
              <Empty>
                Nothing has run yet. <code>flowstone run ASSET</code> starts a run.
              </Empty>
            ) : (
              <Empty>Nothing runs.</Empty>
            )}
          </Card>
          {due.length === 0 ? null : (
            <Card title="Due next" side={<a href={href(['schedules'])}>Schedules</a>}>
              {due.slice(0, SHOWN).map((schedule) => (
                <DueRow schedule={schedule} />
              ))}
            </Card>
          )}
        </div>
        <div class="stack needs">
          <Card title="Waits for a person" side={<a href={href(['inbox'])}>Inbox</a>}>
            {gates.shown.slice(0, SHOWN).map((gate) => (
              <GateRow gate={gate} />
            ))}
            {gates.shown.length === 0 ? <Empty>Nobody waits for you.</Empty> : null}
          </Card>
          <Card title="Failed lately" side={<a href={href(['runs'], { show: 'failed' })}>All</a>}>
            {failed.slice(0, FAILED_SHOWN).map((run) => (
              <FailedRow run={run} />
            ))}
            {failed.length === 0 ? <Empty>Nothing has failed.</Empty> : null}
          </Card>
        </div>
      </div>
    </>
  )
}

function Throughput({ home, points }: { home: HomeAnswer; points: readonly number[] }): JSX.Element {
  const perSecond = home.scatters.reduce((sum, scatter) => sum + scatter.perSecond, 0)
  const waiting = home.scatters.reduce((sum, scatter) => sum + scatter.pending, 0)
  const facts = (points.at(-1) ?? 0) / 60
  const failed = home.scatters.reduce((sum, scatter) => sum + scatter.failed, 0)
  const stats: readonly (readonly [string, string])[] = [
    [rate(perSecond), 'instances a second'],
    [rate(facts), 'facts a second'],
    [count(waiting), 'instances wait'],
    [count(failed), 'instances failed'],
  ]
  return (
    <section class="card throughput">
      <div class="throughput-chart">
        <div class="line">
          <h2>Facts a minute</h2>
          <span class="faint small throughput-when">last hour</span>
        </div>
        <AreaChart values={points} />
      </div>
      <dl class="throughput-stats">
        {stats.map(([value, name]) => (
          <div>
            <dt class="small faint">{name}</dt>
            <dd class="big">{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  )
}

function RunRow({ run, home }: { run: RunExplained; home: HomeAnswer }): JSX.Element {
  const { parts, text, end } = progressOf(run, home.scatters)
  const now = shown.value
  const held = heldBy(run, home.gates.shown, now)
  const so = duration(now - Date.parse(run.requestedAt))
  return (
    <RowLink href={href(['runs', run.id])} class="run-row">
      <State state={runState(run)} />
      <div class="cut">
        <span class="strong">{run.target}</span> <span class="faint">{run.pipeline}</span>
      </div>
      <div class="second cut" title={held.join('\n')}>
        {waitsFor(held)}
      </div>
      <div class="progress">
        <Bar parts={parts} />
        <div class="small faint cut">{text}</div>
      </div>
      <div class="run-times">
        {end === undefined ? (
          <br />
        ) : (
          <span class="strong run-end">
            <Time of={end} text={moment(end, now)} />
          </span>
        )}
        <span class="faint">{so} so far</span>
      </div>
    </RowLink>
  )
}

function GateRow({ gate }: { gate: Gate }): JSX.Element {
  const left = leftOf(gate, shown.value)
  return (
    <RowLink href={href(['inbox', gate.id])} class="gate-row">
      <State state="gate" />
      <span class="cut strong">{gateAsk(gate)}</span>
      <span class={`small ${left.isUrgent ? 'tone-fail strong' : 'faint'}`}>{left.text}</span>
      <span class="second cut">{gate.asset}</span>
    </RowLink>
  )
}

function FailedRow({ run }: { run: Run }): JSX.Element {
  const now = shown.value
  const failure = failureOf(run)
  const { asset } = failure
  const text = plain(failure.text, now)
  return (
    <RowLink href={href(['runs', run.id])} class="gate-row">
      <State state="fail" />
      <span class="cut">
        <span class="strong">{asset ?? run.target}</span> <span class="faint">{run.pipeline}</span>
      </span>
      <span class="small faint">
        {run.finishedAt ? <Time of={run.finishedAt} text={moment(run.finishedAt, now)} /> : null}
      </span>
      <span class="second cut" title={text}>
        {text}
      </span>
    </RowLink>
  )
}

function DueRow({ schedule }: { schedule: Schedule }): JSX.Element {
  const now = shown.value
  const { next } = schedule
  const when =
    'cron' in schedule.when
      ? `${schedule.when.cron}, ${schedule.when.timeZone}`
      : `every ${duration(schedule.when.everyMs)}`
  return (
    <RowLink href={href(['schedules', schedule.pipeline, schedule.schedule])} class="due-row">
      <span class="strong">{next ? <Time of={next} text={moment(next, now)} /> : null}</span>
      <span class="cut">
        {schedule.target} <span class="faint">{when}</span>
      </span>
      <span class="small faint">{next ? relative(next, now) : ''}</span>
    </RowLink>
  )
}
