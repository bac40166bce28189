/** One instance in the drawer: its key, its attempts, its error, and why it waits. */
import type { JSX } from 'preact'
import { useEffect } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import type { Instance, Scatter } from '../api/types.ts'
import { count, counted, duration, moment } from '../format.ts'
import { Sentence } from '../parts/answer.tsx'
import { Facts, Time } from '../parts/card.tsx'
import { Drawer } from '../parts/drawer.tsx'
import { State } from '../parts/glyph.tsx'
import { Loaded } from '../parts/notice.tsx'
import { chainOf, lineOf } from '../runs.ts'
import { shown } from '../state/clock.ts'
import { href } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import type { UiState } from '../words.ts'
import { mainReason, reasonsOf, waitsForReason } from './reasons.ts'
import { GATE, RETRYING, RUNNING, stateNumber, UI_STATES, WAITING, wordOf } from './states.ts'

type Attempt = Instance['attempts'][number]

const OUTCOMES: Readonly<Record<Attempt['outcome'], readonly [UiState, string]>> = {
  done: ['done', 'succeeded'],
  gate: ['gate', 'waits at a gate'],
  error: ['fail', 'failed'],
  terminal: ['fail', 'failed for good'],
  timeout: ['fail', 'ran out of time'],
  lost: ['fail', 'its worker died'],
  returned: ['wait', 'handed back'],
}

export function InstanceDrawer(props: {
  scatter: Scatter
  index: number
  /** As the map knows it; undefined where it does not. */
  state: number | undefined
  onClose: () => void
  /** Shows all that failed by this error. */
  onError: ((error: { code: string; message: string }) => void) | undefined
}): JSX.Element {
  const { scatter, index } = props
  const reading = useRead(reads.instance(scatter.id, index), {})
  const state = props.state ?? stateNumber(reading.data?.state)
  useEffect(() => {
    if (reading.data) reading.reload()
  }, [props.state])
  const ui = UI_STATES[state ?? WAITING] ?? 'wait'
  return (
    <Drawer
      label={`Instance ${count(index)}`}
      title={
        <span class="line">
          <State state={ui} label="" />
          Instance {count(index)}
          <span class="small faint">{state === undefined ? '' : wordOf(state)}</span>
        </span>
      }
      onClose={props.onClose}
    >
      <Loaded reading={reading}>
        {(instance) => <View {...props} state={state ?? WAITING} instance={instance} />}
      </Loaded>
    </Drawer>
  )
}

function View(props: {
  scatter: Scatter
  index: number
  state: number
  instance: Instance
  onError: ((error: { code: string; message: string }) => void) | undefined
}): JSX.Element {
  const { scatter, index, state, instance, onError } = props
  const { attempts, key, complete } = instance
  const error = attempts.at(-1)?.error
  return (
    <>
      <section>
        <h3>Key</h3>
        <pre>{key === undefined ? 'Its key is not stored any more.' : keyText(key)}</pre>
      </section>
      <section>
        <h3>{attempts.length === 0 ? 'Not ended yet' : counted(attempts.length, 'attempt')}</h3>
        {attempts.map((attempt) => (
          <AttemptLine attempt={attempt} />
        ))}
        {complete ? null : <p class="small faint">The log was too long to be read in time: there may be more.</p>}
        <WhyWaits scatter={scatter} state={state} attempts={attempts} />
      </section>
      {error ? (
        <section>
          <h3>Error</h3>
          {chainOf(error).map(({ code, message }, i) => (
            <pre>
              {i > 0 ? 'caused by ' : ''}
              <b>{code}</b>: {message}
            </pre>
          ))}
          {onError ? (
            <div>
              <button type="button" class="button small" onClick={() => onError(error)}>
                Show all with this error
              </button>
            </div>
          ) : null}
        </section>
      ) : null}
      <section>
        <h3>Ids</h3>
        <p>
          <a
            class="link"
            href={href(['runs', runOf(scatter.id)], { logs: assetOf(scatter.id), instance: String(index) })}
          >
            What its code logged
          </a>
        </p>
        <Facts
          of={[
            ['Scatter', <code>{scatter.id}</code>],
            ['Instance', <code>{index}</code>],
          ]}
        />
      </section>
    </>
  )
}

function runOf(id: string): string {
  return id.slice(0, id.indexOf('.'))
}

function assetOf(id: string): string {
  return id.slice(id.indexOf('.') + 1)
}

function keyText(key: unknown): string {
  return typeof key === 'string' ? key : JSON.stringify(key, undefined, 2)
}

function AttemptLine({ attempt }: { attempt: Attempt }): JSX.Element {
  const { outcome, at, durationMs, worker, error, gate } = attempt
  const [state, word] = OUTCOMES[outcome]
  const what = error ? lineOf(error) : word
  return (
    <div class="attempt">
      <State state={state} label="" />
      <span class="strong">Attempt {attempt.attempt}</span>
      <span class="faint small number">
        <Time of={at} text={moment(at, shown.value, true)} />
        {durationMs === undefined ? '' : `, ${duration(durationMs)}`}
      </span>
      <span class="attempt-what small dimmed">
        {what} · on {worker}
        {gate === undefined ? null : (
          <>
            {' · '}
            <a class="link" href={href(['inbox', gate])}>
              its gate
            </a>
          </>
        )}
      </span>
    </div>
  )
}

function WhyWaits(props: { scatter: Scatter; state: number; attempts: readonly Attempt[] }): JSX.Element | null {
  const { scatter, state, attempts } = props
  if (scatter.status !== 'open') return null
  const text = (words: string): JSX.Element => <p class="dimmed">{words}</p>
  if (scatter.paused && (state === WAITING || state === RETRYING))
    return text('It waits until somebody resumes the scatter.')
  if (state === GATE) return text('It waits for a signal, or for a run.')
  if (state === RETRYING) return text('It waits for its next attempt.')
  if (state === RUNNING) return attempts.length === 0 ? text('It runs, or is in the hands of a worker.') : null
  if (state !== WAITING) return null
  const reason = mainReason(reasonsOf(scatter, href))
  return reason ? (
    <p class="dimmed">
      <Sentence parts={waitsForReason(reason)} />
    </p>
  ) : (
    text('It waits for its turn.')
  )
}
