/** Schedules and events: what starts next, what did not? */
import type { JSX } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { pathOf } from '../api/client.ts'
import * as reads from '../api/reads.ts'
import type { RefusedMessage, RefusedTrigger, Run, Schedule, Sensor, Subscription } from '../api/types.ts'
import { count, counted, moment, relative, shortId } from '../format.ts'
import { Act } from '../parts/act.tsx'
import { Answer } from '../parts/answer.tsx'
import { Card, Empty, Time } from '../parts/card.tsx'
import { State } from '../parts/glyph.tsx'
import { Loaded } from '../parts/notice.tsx'
import {
  lane,
  lastOf,
  type Mark,
  missedWords,
  refusedRows,
  SPAN_MS,
  schedulesAnswer,
  sensorLine,
  subscriptionLine,
  whenWords,
} from '../schedules.ts'
import { shown } from '../state/clock.ts'
import { href, isPast } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { client, seesAll } from '../state/session.ts'

const EVERY_MS = 10_000
const MOST = 1000
const REFUSED = 20

export default function Schedules({ ids }: { ids: readonly string[] }): JSX.Element {
  const schedules = useRead(reads.schedules(), { on: { runs: true }, restMs: 2000, everyMs: EVERY_MS })
  const sensors = useRead(reads.sensors(), { everyMs: EVERY_MS })
  const subscriptions = useRead(reads.subscriptions(), { everyMs: EVERY_MS })
  const triggers = useRead(seesAll.value ? reads.refusedTriggers({ limit: REFUSED }) : undefined, { everyMs: EVERY_MS })
  return (
    <div class="page">
      <Loaded reading={schedules}>
        {(answer) => (
          <Lanes
            schedules={answer.schedules}
            sensors={sensors.data?.sensors ?? []}
            chosen={ids.join('/')}
            reload={schedules.reload}
          />
        )}
      </Loaded>
      {sensors.data && sensors.data.sensors.length > 0 ? (
        <Sensors sensors={sensors.data.sensors} reload={sensors.reload} />
      ) : null}
      {isPast.value ? (
        <div class="notice" role="status">
          <State state="wait" label="" />
          <span>Where subscriptions stood and what was refused is not kept.</span>
        </div>
      ) : (
        <Events
          subscriptions={subscriptions.data?.subscriptions ?? []}
          triggers={triggers.data?.refused ?? []}
          reload={() => {
            subscriptions.reload()
            triggers.reload()
          }}
        />
      )}
    </div>
  )
}

function Lanes(props: {
  schedules: readonly Schedule[]
  sensors: readonly Sensor[]
  chosen: string
  reload: () => void
}): JSX.Element {
  const { schedules, sensors, chosen, reload } = props
  const why = missedWords(schedules)
  return (
    <>
      <div class="page-head">
        <div>
          <Answer parts={schedulesAnswer(schedules, sensors, shown.value)} />
          {why === '' ? null : <p class="why">{why}</p>}
        </div>
      </div>
      {schedules.length === 0 ? (
        <Card>
          <Empty>
            <p>A schedule starts runs by itself. Five lines of code:</p>
            <pre>{`const nightly = schedule('nightly', {
  cron: '0 2 * * *',
  timeZone: 'Europe/Berlin',
  run: report,
})
export default pipeline('orders', [report], { schedules: [nightly] })`}</pre>
          </Empty>
        </Card>
      ) : (
        <Card>
          <div class="list-head schedule-row" aria-hidden="true">
            <span>Schedule</span>
            <span class="lane-axis">
              <span>12 h ago</span>
              <b>{isPast.value ? 'then' : 'now'}</b>
              <span>in 12 h</span>
            </span>
            <span>Last</span>
            <span>Next</span>
            <span />
          </div>
          {schedules.map((schedule) => (
            <Row key={schedule.name} schedule={schedule} isCurrent={schedule.name === chosen} reload={reload} />
          ))}
        </Card>
      )}
    </>
  )
}

/** Pauses what goes on, or resumes what is paused. */
function Hold(props: { isPaused: boolean; path: string; onDone: () => void }): JSX.Element {
  const verb = props.isPaused ? 'resume' : 'pause'
  return (
    <Act
      key={verb}
      scope="operate"
      isSmall
      act={(key) => client.post(`${props.path}/${verb}`, undefined, { key })}
      onDone={props.onDone}
    >
      {props.isPaused ? 'Resume' : 'Pause'}
    </Act>
  )
}

function Row(props: { schedule: Schedule; isCurrent: boolean; reload: () => void }): JSX.Element {
  const { schedule, isCurrent, reload } = props
  const { pipeline, target, next, state } = schedule
  const now = shown.value
  const [since] = useState(() => new Date(now - SPAN_MS).toISOString())
  const runs = useRead(reads.runs({ target: `${pipeline}/${target}`, since, limit: MOST }), {
    on: { runs: true },
    restMs: 5000,
  })
  const past = useRead(reads.occurrences(pipeline, schedule.schedule, { limit: MOST, next: MOST }), { everyMs: 60_000 })
  // Each start changes what the schedule says of itself.
  useEffect(past.reload, [schedule.fired, schedule.skipped, schedule.missed])
  const statuses = new Map((runs.data?.runs ?? []).map((run): [string, Run['status']] => [run.id, run.status]))
  const marks = past.data ? lane(past.data.occurrences, state === 'active' ? past.data.next : [], statuses, now) : []
  const last = lastOf(schedule, statuses, now)
  const path = pathOf`/schedules/${pipeline}/${schedule.schedule}`
  return (
    <div class={`row schedule-row ${isCurrent ? 'current' : ''}`}>
      <span class="schedule-name">
        <span class="cut">
          <a class="strong" data-nav href={href(['schedules', pipeline, schedule.schedule])}>
            {schedule.schedule}
          </a>{' '}
          <span class="faint">
            makes{' '}
            <a href={href(['assets', pipeline, target])}>
              <code>{target}</code>
            </a>
          </span>
        </span>
        <span class="small faint cut">
          {whenWords(schedule.when)} · {pipeline}
        </span>
      </span>
      <Lane marks={marks} />
      <span class="line schedule-last">
        <State state={last.state} label="" />
        {last.run === undefined ? (
          <span class="small dimmed cut" title={last.text}>
            {last.text}
          </span>
        ) : (
          <a class="small dimmed cut" href={href(['runs', last.run])} title={last.text}>
            {last.text}
          </a>
        )}
      </span>
      <span class="dimmed schedule-next">
        {next && state === 'active' ? <Time of={next} text={moment(next, now)} /> : 'none'}
        {schedule.waiting > 0 ? <span class="small faint"> {count(schedule.waiting)} wait</span> : null}
      </span>
      <span class="line schedule-acts">
        <Act
          scope="start"
          isSmall
          act={(key) => client.post(`${path}/trigger`, undefined, { key })}
          onDone={reload}
          done={`${schedule.schedule} has started a run.`}
        >
          Start
        </Act>
        <Hold isPaused={state === 'paused'} path={path} onDone={reload} />
      </span>
    </div>
  )
}

/** One mark for each start. What it shows is also in words for who does not see it. */
function Lane({ marks }: { marks: readonly Mark[] }): JSX.Element {
  const over = marks.filter(({ kind }) => kind !== 'due')
  const words = [...Map.groupBy(over, ({ kind }) => kind)].map(
    ([kind, own]) => `${count(own.reduce((sum, one) => sum + one.count, 0))} ${kind === 'done' ? 'succeeded' : kind}`,
  )
  const due = marks.filter(({ kind }) => kind === 'due').reduce((sum, one) => sum + one.count, 0)
  return (
    <span class="lane">
      <span class="hidden">{`Last 12 hours: ${words.join(', ') || 'nothing'}. Next 12 hours: ${count(due)} due.`}</span>
      <span class="lane-axis-line" />
      {marks.map(({ share, kind, title, run }) => {
        const style = { left: `${(share * 100).toFixed(2)}%` }
        const names = `mark mark-${kind} ${kind === 'done' || kind === 'fail' || kind === 'run' || kind === 'off' || kind === 'wait' ? `map-${kind}` : ''}`
        return run === undefined ? (
          <i class={names} style={style} title={title} />
        ) : (
          <a class={names} style={style} title={title} tabIndex={-1} href={href(['runs', run])}>
            <span class="hidden">{title}</span>
          </a>
        )
      })}
      <span class="lane-now" />
    </span>
  )
}

function Sensors({ sensors, reload }: { sensors: readonly Sensor[]; reload: () => void }): JSX.Element {
  const now = shown.value
  return (
    <Card title="Sensors" side={count(sensors.length)}>
      {sensors.map((sensor) => {
        const { pipeline, target, next, state } = sensor
        const line = sensorLine(sensor, now)
        const path = pathOf`/sensors/${pipeline}/${sensor.sensor}`
        return (
          <div class="row sensor-row">
            <State state={line.state} />
            <span class="cut">
              <span class="strong">{sensor.sensor}</span>{' '}
              <span class="faint">
                starts{' '}
                <a href={href(['assets', pipeline, target])}>
                  <code>{target}</code>
                </a>
              </span>
            </span>
            <span class="small dimmed cut" title={line.text}>
              {line.text}
            </span>
            <span class="small faint">
              {count(sensor.evaluations)} looks{next && state !== 'paused' ? `, next ${relative(next, now)}` : ''}
            </span>
            <span class="line schedule-acts">
              <Act
                scope="start"
                isSmall
                act={(key) => client.post(`${path}/trigger`, undefined, { key })}
                onDone={reload}
                done={`${sensor.sensor} looks now.`}
              >
                Look now
              </Act>
              <Hold isPaused={state === 'paused'} path={path} onDone={reload} />
            </span>
          </div>
        )
      })}
    </Card>
  )
}

function Events(props: {
  subscriptions: readonly Subscription[]
  triggers: readonly RefusedTrigger[]
  reload: () => void
}): JSX.Element {
  const { subscriptions, triggers, reload } = props
  const [messages, setMessages] = useState<ReadonlyMap<string, readonly RefusedMessage[]>>(new Map())
  const rows = refusedRows([...messages.values()].flat(), triggers).slice(0, REFUSED)
  return (
    <div class="columns">
      <Card title="Events" side={counted(subscriptions.length, 'subscription')}>
        {subscriptions.length === 0 ? (
          <Empty>
            No subscription. <code>subscription()</code> has messages of a subject start runs.
          </Empty>
        ) : (
          <div class="list-head event-row" aria-hidden="true">
            <span />
            <span>Subscription</span>
            <span>Starts</span>
            <span class="number">Taken</span>
            <span class="number">Refused</span>
            <span class="number">Open</span>
          </div>
        )}
        {subscriptions.map((one) => (
          <EventRow
            key={one.name}
            subscription={one}
            onRefused={(found) => setMessages((before) => new Map(before).set(one.name, found))}
          />
        ))}
      </Card>
      <Card title="Refused" side={count(rows.length)}>
        {rows.map(({ id, at, reason, from, message, trigger }) => (
          <div class="row gate-row" key={id}>
            <State state="fail" label="refused" />
            <span class="cut" title={reason}>
              {reason}
            </span>
            <span class="small faint">
              <Time of={at} text={moment(at, shown.value, true)} />
            </span>
            <span class="second cut">{from}</span>
            {message ? (
              <span class="refused-act">
                <Act
                  scope="operate"
                  isSmall
                  icon="retry"
                  act={(key) =>
                    client.post(
                      pathOf`/subscriptions/${message.pipeline}/${message.subscription}/refused/${message.seq}/retry`,
                      undefined,
                      { key },
                    )
                  }
                  onDone={reload}
                  done="The message is taken again."
                >
                  Take again
                </Act>
              </span>
            ) : null}
            {trigger ? <TriggerAct trigger={trigger} reload={reload} /> : null}
          </div>
        ))}
        {rows.length === 0 ? <Empty>Nothing was refused.</Empty> : null}
      </Card>
    </div>
  )
}

/** Takes a trigger after all, or leads to the run of one that was taken. */
function TriggerAct({ trigger, reload }: { trigger: RefusedTrigger; reload: () => void }): JSX.Element | null {
  const { id, run, kept } = trigger
  if (run !== undefined)
    return (
      <a class="link refused-act small" href={href(['runs', run])}>
        taken, run <code>{shortId(run)}</code>
      </a>
    )
  if (!kept) return null
  return (
    <span class="refused-act">
      <Act
        scope="operate"
        isSmall
        icon="retry"
        act={(key) => client.post(pathOf`/triggers/refused/${id}/retry`, undefined, { key })}
        onDone={reload}
        done="The trigger is taken."
      >
        Take again
      </Act>
    </span>
  )
}

function EventRow(props: {
  subscription: Subscription
  onRefused: (messages: readonly RefusedMessage[]) => void
}): JSX.Element {
  const { subscription, onRefused } = props
  const { pipeline, target, stream, taken, refused, open, maxOpen } = subscription
  const read = refused > 0 ? reads.refusedMessages(pipeline, subscription.subscription, { limit: REFUSED }) : undefined
  const found = useRead(read, { everyMs: EVERY_MS })
  useEffect(found.reload, [refused])
  useEffect(() => {
    if (found.data) onRefused(found.data.refused)
  }, [found.data])
  const line = subscriptionLine(subscription)
  return (
    <div class="row event-row">
      <State state={line.state} label={line.text} />
      <span class="cut">
        <span class="strong">{subscription.subscription}</span>
        <span class="small faint block cut" title={stream}>
          {line.text}, stream {stream}
        </span>
      </span>
      <a class="dimmed cut" href={href(['assets', pipeline, target])}>
        <code>{target}</code>
      </a>
      <span class="number">{count(taken)}</span>
      <span class={`number ${refused > 0 ? 'tone-fail strong' : 'faint'}`}>{count(refused)}</span>
      <span class="number small dimmed">
        {count(open)} of {count(maxOpen)}
      </span>
    </div>
  )
}
