/** Workers: is everybody there, and well? */
import type { JSX } from 'preact'
import * as reads from '../api/reads.ts'
import type { Pipeline, Shard, Worker, Workers as WorkersAnswer } from '../api/types.ts'
import { count, counted, duration } from '../format.ts'
import { Answer, Sentence } from '../parts/answer.tsx'
import { Card, Empty } from '../parts/card.tsx'
import { State } from '../parts/glyph.tsx'
import { Loaded, NotForAll, NotKept } from '../parts/notice.tsx'
import { present } from '../state/clock.ts'
import { href, isPast } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { seesAll } from '../state/session.ts'
import {
  type EngineRow,
  engineRows,
  LAG_FACTS,
  LATE_MS,
  olderCode,
  shortVersion,
  workersAnswer,
  workersTrouble,
} from '../workers.ts'

const EVERY_MS = 3000

export default function Workers(): JSX.Element {
  const reading = useRead(seesAll.value ? reads.workers() : undefined, { everyMs: EVERY_MS })
  const newest = useRead(reads.pipelines(), { everyMs: 60_000 }).data?.pipelines ?? []
  if (!seesAll.value) return <NotForAll title="Workers" />
  if (isPast.value)
    return <NotKept title="Who was there is not kept." what="Workers and engines are known only for now." />
  return (
    <div class="page">
      <Loaded reading={reading}>{(answer: WorkersAnswer) => <View answer={answer} newest={newest} />}</Loaded>
    </div>
  )
}

function View({ answer, newest }: { answer: WorkersAnswer; newest: readonly Pipeline[] }): JSX.Element {
  const { workers, engines, shards } = answer
  const trouble = workersTrouble(workers, shards, newest, present.value)
  const slots = workers.reduce((sum, worker) => sum + (worker.slots ?? 0), 0)
  const free = workers.reduce((sum, worker) => sum + (worker.free ?? 0), 0)
  return (
    <>
      <div class="page-head">
        <div>
          <Answer parts={workersAnswer(workers, shards)} />
          {trouble.length === 0 ? null : (
            <p class="why">
              <Sentence parts={trouble} />
            </p>
          )}
        </div>
      </div>
      <div class="columns halves">
        <Engines rows={engineRows(shards, engines)} />
        <Shards shards={shards} />
      </div>
      <Card title="Workers" side={slots === 0 ? undefined : `${count(slots - free)} of ${count(slots)} places in use`}>
        {workers.length === 0 ? (
          <Empty>
            No worker. Runs wait. <code>flowstone worker FILE</code> starts one.
          </Empty>
        ) : (
          <>
            <div class="list-head worker-row" aria-hidden="true">
              <span>Worker</span>
              <span>Code</span>
              <span>Queues</span>
              <span>Places</span>
              <span>Makes</span>
              <span class="number">Loop delay</span>
              <span class="number">Heard</span>
            </div>
            <ul>
              {workers.map((worker) => (
                <WorkerRow worker={worker} newest={newest} />
              ))}
            </ul>
          </>
        )}
      </Card>
    </>
  )
}

function Engines({ rows }: { rows: readonly EngineRow[] }): JSX.Element {
  return (
    <Card title="Engines" side={rows.length === 1 ? 'no other one stands by' : undefined}>
      {rows.map(({ id, shards, behind, denied }) => (
        <div class="row engine-row">
          <span class="strong cut" title={id}>
            {id}
          </span>
          <span class={`small ${denied === undefined ? 'dimmed' : 'tone-fail'}`} title={denied}>
            {denied !== undefined
              ? 'lacks a permission'
              : shards.length === 0
                ? 'stands by'
                : `active, ${counted(shards.length, 'shard')}`}
          </span>
          <span class={`number small ${behind >= LAG_FACTS ? 'tone-late strong' : 'dimmed'}`}>
            {shards.length === 0 ? '' : behind === 0 ? 'keeps up' : `${counted(behind, 'fact')} behind`}
          </span>
        </div>
      ))}
      {rows.length === 0 ? (
        <Empty>
          No engine. Nothing goes on. <code>flowstone engine</code> starts one.
        </Empty>
      ) : null}
    </Card>
  )
}

function Shards({ shards }: { shards: readonly Shard[] }): JSX.Element {
  const engines = engineRows(shards).map(({ id }) => id)
  const messages = shards.reduce((sum, shard) => sum + shard.messages, 0)
  const lagging = shards.filter(({ behind }) => behind >= LAG_FACTS).length
  return (
    <Card title="Shards" side={lagging === 0 ? 'all keep up' : `${counted(lagging, 'shard')} behind`}>
      <div class="pad">
        <ul class="shards">
          {shards.map(({ shard, engine, behind, problem }) => {
            const place = engine === undefined ? '' : `e${engines.indexOf(engine) + 1}`
            const name = `Shard ${shard}: ${engine === undefined ? 'no engine' : `engine ${engine}`}, ${counted(behind, 'fact')} behind`
            const tone = problem || engine === undefined ? 'lost' : behind >= LAG_FACTS ? 'lags' : ''
            return (
              <li class={tone} title={problem ? `${name}. ${problem.message}` : name}>
                <span class="hidden">{name}</span>
                <span aria-hidden="true">{place === '' ? 'none' : engines.length > 1 ? place : shard}</span>
              </li>
            )
          })}
        </ul>
        <p class="small faint shards-foot">
          The logs hold {counted(messages, 'fact')}.{' '}
          <a class="link" href={href(['log'])}>
            Log
          </a>
        </p>
      </div>
    </Card>
  )
}

function WorkerRow({ worker, newest }: { worker: Worker; newest: readonly Pipeline[] }): JSX.Element {
  const { id, state, seenAt, pipelines, slots, free, loopDelayMs } = worker
  const older = olderCode(worker, newest)
  const versions = [...new Set(pipelines.flatMap((one) => one.versions))]
  const queues = [...new Set(pipelines.flatMap((one) => one.queues))]
  const made = pipelines.flatMap(({ name, running }) => running.map((asset) => ({ name, asset })))
  const isLate = loopDelayMs !== undefined && loopDelayMs >= LATE_MS
  const busy = slots === undefined || free === undefined ? undefined : slots - free
  const glyph = state === 'silent' || isLate ? 'late' : busy === 0 ? 'wait' : 'run'
  const word =
    state === 'silent'
      ? 'silent'
      : state === 'draining'
        ? 'ends when what runs has ended'
        : isLate
          ? 'answers late'
          : busy === 0
            ? 'idle'
            : 'works'
  return (
    <li class="row worker-row">
      <span class="line">
        <State state={glyph} label={word} />
        <span class="strong cut" title={id}>
          {id}
        </span>
      </span>
      <span class="cut" title={versions.join('\n')}>
        <code class={older.length > 0 ? 'tone-late' : 'dimmed'}>
          {versions.length === 0 ? '' : shortVersion(versions[0] ?? '')}
        </code>
        {versions.length > 1 ? <span class="small faint"> and {counted(versions.length - 1, 'other')}</span> : null}
        {older.length > 0 ? <span class="small tone-late"> older</span> : null}
      </span>
      <span class="small dimmed cut" title={queues.join(', ')}>
        {queues.join(', ')}
      </span>
      <span class="line worker-load">
        {busy === undefined || slots === undefined ? null : (
          <>
            <span class="load" aria-hidden="true">
              <i style={{ width: `${Math.min(100, (busy / Math.max(1, slots)) * 100).toFixed(1)}%` }} />
            </span>
            <span class="small dimmed">
              {count(busy)} of {count(slots)}
            </span>
          </>
        )}
      </span>
      <span class="small dimmed cut" title={made.map(({ name, asset }) => `${name}/${asset}`).join(', ')}>
        {made.length === 0
          ? 'nothing'
          : made.slice(0, 4).map(({ name, asset }, i) => (
              <>
                {i === 0 ? '' : ', '}
                <a href={href(['assets', name, asset])}>{asset}</a>
              </>
            ))}
        {made.length > 4 ? ` and ${count(made.length - 4)} more` : ''}
      </span>
      <span class={`number small ${isLate ? 'tone-late strong' : 'dimmed'}`}>
        {loopDelayMs === undefined ? 'no answer' : `${count(loopDelayMs)} ms`}
      </span>
      <span class="number small dimmed">
        {state !== 'silent' ? 'now' : `${duration(present.value - Date.parse(seenAt))} ago`}
      </span>
    </li>
  )
}
