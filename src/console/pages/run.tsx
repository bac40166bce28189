/** A run: why is it not done? */
import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import { runAnswer } from '../answers.ts'
import * as reads from '../api/reads.ts'
import type { RunPage, Why } from '../api/types.ts'
import { duration, moment } from '../format.ts'
import { timeWent } from '../gantt.ts'
import { Act } from '../parts/act.tsx'
import { Sentence } from '../parts/answer.tsx'
import { Bar, Card, Facts, Tag, Time } from '../parts/card.tsx'
import { ErrorChain } from '../parts/error.tsx'
import { State } from '../parts/glyph.tsx'
import { Loaded } from '../parts/notice.tsx'
import { Tabs } from '../parts/tabs.tsx'
import { plain } from '../plain.ts'
import { errorsOf, startedBy } from '../runs.ts'
import { shown } from '../state/clock.ts'
import { address, go, href, setAt, setQuery } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { client } from '../state/session.ts'
import { runState, STATE_WORDS } from '../words.ts'
import { AssetDrawer } from './run-asset.tsx'
import { RunGantt } from './run-gantt.tsx'
import { RunHistoryList, RunInputView } from './run-history.tsx'
import { RunLogsCard } from './run-logs.tsx'

export default function RunView({ ids }: { ids: readonly string[] }): JSX.Element {
  const [id = ''] = ids
  const topics = { run: [id] }
  const reading = useRead(reads.run(id), { on: topics, restMs: 500 })
  const why = useRead(reads.why({ run: id }), { on: topics, restMs: 2000 })
  return (
    <div class="page">
      <Loaded reading={reading}>{(page) => <Page key={id} page={page} why={why.data} />}</Loaded>
    </div>
  )
}

const isOpen = ({ status }: RunPage['run']): boolean => ['queued', 'requested', 'running'].includes(status)

function Page({ page, why }: { page: RunPage; why: Why | undefined }): JSX.Element {
  const { run, gates } = page
  const now = shown.value
  const { asset } = address.value.query
  const said = why && plain(why.verdict.message, now)
  return (
    <>
      <div class="page-head">
        <div>
          <h1 class="run-title">
            {run.target} <span class="faint">{run.pipeline}</span>{' '}
            <Tag>
              <State state={runState(run)} label="" />
              {run.status === 'running' ? STATE_WORDS[runState(run)] : run.status}
            </Tag>
          </h1>
          <p class="why">{said ?? <Sentence parts={runAnswer(run, gates, now)} />}</p>
        </div>
        <div class="acts">
          <Acts run={run} />
        </div>
      </div>
      <div class="run-columns">
        <div class="stack">
          <RunGantt page={page} now={now} />
          <Card title="How it came to this" side="each with the fact that proves it">
            {why ? <Chain why={why} now={now} /> : null}
          </Card>
          <RunLogsCard id={run.id} assets={Object.keys(run.assets)} />
        </div>
        <Aside page={page} now={now} />
      </div>
      {asset !== undefined && run.assets[asset] ? (
        <AssetDrawer page={page} asset={asset} now={now} onClose={() => setQuery({ asset: '' })} />
      ) : null}
    </>
  )
}

function Acts({ run }: { run: RunPage['run'] }): JSX.Element | null {
  if (isOpen(run))
    return (
      <Act
        scope="operate"
        kind="danger"
        act={() => client.post(`/runs/${run.id}/cancel`, {})}
        confirm={{ text: 'What runs is aborted. What is done stays.', button: `Cancel run of ${run.target}` }}
      >
        Cancel run
      </Act>
    )
  if (run.status === 'succeeded') return null
  return (
    <Act
      scope="operate"
      icon="retry"
      act={async () => {
        const { run: again } = await client.post<{ run: string }>(`/runs/${run.id}/retry`, {})
        go(['runs', again])
      }}
    >
      Retry failed
    </Act>
  )
}

/** From cause to effect. A time leads to that moment. */
function Chain({ why, now }: { why: Why; now: number }): JSX.Element {
  return (
    <ol class="chain">
      {why.chain.map(({ message, fact }) => (
        <li>
          <button type="button" class="chain-time" title="Show this moment" onClick={() => setAt(new Date(fact.at))}>
            {moment(fact.at, now, true)}
          </button>
          <span>{plain(message, now)}</span>
          <code class="faint cut" title={`Shard ${fact.shard}, sequence ${fact.seq}`}>
            {fact.kind}
          </code>
        </li>
      ))}
      {why.state.map(({ message }) => (
        <li>
          <span class="faint">now</span>
          <span>{plain(message, now)}</span>
          <span />
        </li>
      ))}
    </ol>
  )
}

type View = 'run' | 'errors' | 'input' | 'facts'

function Aside({ page, now }: { page: RunPage; now: number }): JSX.Element {
  const [view, setView] = useState<View>('run')
  const { run } = page
  const errors = errorsOf(run)
  const views: readonly (readonly [View, string])[] = [
    ['run', 'Run'],
    ['errors', errors.length === 0 ? 'Errors' : `Errors ${errors.length}`],
    ['input', 'Input'],
    ['facts', 'Facts'],
  ]
  return (
    <section class="card run-aside">
      <Tabs label="About the run" options={views} value={view} onChange={setView}>
        {view === 'run' ? <About page={page} now={now} /> : null}
        {view === 'errors' ? (
          <div class="pad stack">
            {errors.map((error) => (
              <ErrorOf {...error} />
            ))}
            {errors.length === 0 ? <p class="faint">Nothing has failed.</p> : null}
          </div>
        ) : null}
        {view === 'input' ? <RunInputView id={run.id} /> : null}
        {view === 'facts' ? <RunHistoryList id={run.id} isOpen={isOpen(run)} /> : null}
      </Tabs>
    </section>
  )
}

function About({ page, now }: { page: RunPage; now: number }): JSX.Element {
  const { run } = page
  const [error] = errorsOf(run)
  const tags = Object.entries(run.tags ?? {})
  const end = run.finishedAt
  const facts: (readonly [string, JSX.Element | string])[] = [
    ['Id', <code>{run.id}</code>],
    ['Asked for', <code>{run.target}</code>],
    ...(startedBy(run) === '' ? [] : [['By', startedBy(run)] as const]),
    ...(run.partition === undefined ? [] : [['Partition', <code>{run.partition}</code>] as const]),
    [
      'Started',
      <>
        <Time of={run.requestedAt} text={moment(run.requestedAt, now, true)} />,{' '}
        {duration(now - Date.parse(run.requestedAt))} ago
      </>,
    ],
    ...(end === undefined
      ? []
      : [
          [
            'Ended',
            <>
              <Time of={end} text={moment(end, now, true)} />, after{' '}
              {duration(Date.parse(end) - Date.parse(run.requestedAt))}
            </>,
          ] as const,
        ]),
    ...(run.deadline === undefined || end !== undefined
      ? []
      : [['Deadline', <Time of={run.deadline} text={moment(run.deadline, now, true)} />] as const]),
    [
      'Code',
      <>
        version <code>{run.version.slice(0, 8)}</code>
      </>,
    ],
    ...(run.retryOf === undefined
      ? []
      : [
          [
            'Retry of',
            <a class="link" href={href(['runs', run.retryOf])}>
              <code>{run.retryOf}</code>
            </a>,
          ] as const,
        ]),
    ...(run.parent === undefined
      ? []
      : [
          [
            'For',
            <a class="link" href={href(['runs', run.parent.run])}>
              {run.parent.asset} of <code>{run.parent.run}</code>
            </a>,
          ] as const,
        ]),
    ...(run.hook === undefined
      ? []
      : [
          [
            'Hook of',
            <a class="link" href={href(['runs', run.hook.run])}>
              <code>{run.hook.run}</code>
            </a>,
          ] as const,
        ]),
    ...(run.lateSince === undefined
      ? []
      : [['Late since', <Time of={run.lateSince} text={moment(run.lateSince, now, true)} />] as const]),
    ...(run.concurrency === undefined
      ? []
      : [
          [
            'One of',
            <>
              {run.concurrency.limit} of <code>{run.concurrency.key}</code>
            </>,
          ] as const,
        ]),
    ...(tags.length === 0
      ? []
      : [
          [
            'Tags',
            <span class="tags">
              {tags.map(([name, value]) => (
                <Tag>{value === '' ? name : `${name}=${value}`}</Tag>
              ))}
            </span>,
          ] as const,
        ]),
  ]
  return (
    <div class="pad stack">
      <Facts of={facts} />
      {error ? <ErrorOf {...error} /> : null}
      <div class="stack time-went">
        <h2>Where the time went</h2>
        {timeWent(page, now)
          .filter(({ share }) => share >= 0.005)
          .map(({ name, state, share }) => (
            <div class="time-share">
              <span>{name}</span>
              <span class="dimmed">{Math.round(share * 100)} %</span>
              <Bar parts={[{ state, share }]} />
            </div>
          ))}
      </div>
    </div>
  )
}

function ErrorOf({ asset, error, attempt, isLast }: ReturnType<typeof errorsOf>[number]): JSX.Element {
  return (
    <div class="run-error">
      <State state={isLast ? 'fail' : 'retry'} label="" />
      <div>
        <a class="link" href={href(address.value.path, { ...address.value.query, asset })}>
          <code>{asset}</code>
        </a>
        <div class="dimmed small">{isLast ? `failed in attempt ${attempt}` : `attempt ${attempt} follows`}</div>
        <ErrorChain error={error} />
      </div>
    </div>
  )
}
