/** One asset, beside the graph: its value, what it is made from and for what, and its last runs. */
import type { JSX } from 'preact'
import { useState } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import type { AssetPage, Run } from '../api/types.ts'
import { assetSentence, median, NODE_WORDS, type NodeInfo, runBars, valueLines } from '../assets.ts'
import { bytes, count, counted, duration, moment, relative, shortId } from '../format.ts'
import { Act } from '../parts/act.tsx'
import { Facts, Tag, Time } from '../parts/card.tsx'
import { ErrorChain } from '../parts/error.tsx'
import { Icon, State } from '../parts/glyph.tsx'
import { Loaded, Notice } from '../parts/notice.tsx'
import { shown } from '../state/clock.ts'
import { href } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { client } from '../state/session.ts'
import { StartRun } from './start-run.tsx'

const VALUE_BYTES = 8192
const PARTITIONS = 200

/** `isAlone`: the graph is not beside it. */
export function AssetPanel({ info, isAlone }: { info: NodeInfo; isAlone?: boolean }): JSX.Element {
  const { pipeline, name } = info.asset
  const reading = useRead(reads.asset(pipeline, name), { on: { runs: true }, restMs: 2000, everyMs: 30_000 })
  const [partition, setPartition] = useState<string | undefined>(undefined)
  return (
    <aside class={`asset-panel ${isAlone ? 'alone' : ''}`} aria-label={`${pipeline}/${name}`}>
      <Head info={info} partition={partition} />
      <Value info={info} partition={partition} onPartition={setPartition} />
      <Loaded reading={reading}>{(page) => <Rest info={info} page={page} />}</Loaded>
    </aside>
  )
}

function Head({ info, partition }: { info: NodeInfo; partition: string | undefined }): JSX.Element {
  const { asset, state } = info
  const { pipeline, name, kind, openRuns, failedRun, error } = asset
  const [isAsking, setAsking] = useState(false)
  const [open] = openRuns
  const run = open ?? failedRun
  return (
    <section>
      <div class="line">
        <State state={state} label={NODE_WORDS[state]} />
        <h2 class="asset-title cut">
          <code>{name}</code>
        </h2>
        {kind === 'asset' ? null : <Tag>{kind}</Tag>}
        <span class="space" />
        <a class="icon-button" href={href(['assets'])} aria-label="Close">
          <Icon name="close" />
        </a>
      </div>
      <p class="dimmed">{assetSentence(info, shown.value)}</p>
      {error && state === 'fail' ? <ErrorChain error={error} /> : null}
      <div class="line asset-acts">
        {kind === 'scatter' && open !== undefined ? (
          <a class="button small" href={href(['runs', open, name])}>
            Open the map
          </a>
        ) : null}
        {kind === 'input' ? null : (
          <>
            <Act
              scope="start"
              isSmall
              act={(key) =>
                client.post('/runs', { target: `${pipeline}/${name}`, ...(partition ? { partition } : {}) }, { key })
              }
              done={`A run makes ${name}.`}
            >
              Make it now
            </Act>
            <Act scope="start" isSmall act={() => Promise.resolve(setAsking(true))}>
              Make with…
            </Act>
          </>
        )}
        {run === undefined ? null : (
          <a class="button small" href={href(['runs', run])}>
            {open === undefined ? 'Failed run' : 'Run'}
          </a>
        )}
      </div>
      {isAsking ? <StartRun target={`${pipeline}/${name}`} onClose={() => setAsking(false)} /> : null}
    </section>
  )
}

function Value(props: {
  info: NodeInfo
  partition: string | undefined
  onPartition: (partition: string | undefined) => void
}): JSX.Element | null {
  const { pipeline, name, newest, partitions } = props.info.asset
  const query = { maxBytes: VALUE_BYTES, ...(props.partition === undefined ? {} : { partition: props.partition }) }
  const of = props.partition ?? newest?.partition
  const value = useRead(
    newest ? reads.value(pipeline, name, { ...query, ...(of === undefined ? {} : { partition: of }) }) : undefined,
    { on: { runs: true }, restMs: 3000 },
  )
  const all = useRead(partitions > 1 ? reads.partitions(pipeline, name, { limit: PARTITIONS }) : undefined)
  if (!newest) return null
  const { data } = value
  const lines = data && valueLines(data.value, data.preview)
  return (
    <section>
      <h3>Value</h3>
      <Notice reading={value} />
      {lines ? (
        <pre class="asset-value">
          {lines.text}
          {lines.isCut ? '\n…' : ''}
        </pre>
      ) : null}
      {data?.at ? (
        <p class="small faint">
          Made <Time of={data.at} text={relative(data.at, shown.value)} />
          {data.run ? (
            <>
              {' '}
              by{' '}
              <a class="link" href={href(['runs', data.run])} title={data.run}>
                <code>{shortId(data.run)}</code>
              </a>
            </>
          ) : null}
          , {bytes(data.bytes)} as JSON.
        </p>
      ) : null}
      {all.data && all.data.total > 1 ? (
        <label class="line small">
          <span class="faint">Partition, {count(all.data.total)} in all</span>
          <select value={of ?? ''} onChange={(event) => props.onPartition(event.currentTarget.value)}>
            {all.data.partitions.map((one) => (
              <option value={one}>{one === '' ? 'none' : one}</option>
            ))}
          </select>
        </label>
      ) : null}
    </section>
  )
}

function Rest({ info, page }: { info: NodeInfo; page: AssetPage }): JSX.Element {
  const { asset } = info
  const { dependents, runs } = page
  const { newest, limits, queue, partitions, maxAttempts, timeoutMs } = asset
  const maker = runs.find(({ id }) => id === newest?.run)
  return (
    <>
      <section>
        <h3>Freshness</h3>
        <Facts
          of={[
            ['Is', newest ? `${duration(shown.value - Date.parse(newest.at))} old` : 'not made'],
            [
              'Newer',
              asset.behind.length === 0 ? (
                'nothing that it is made from'
              ) : (
                <Names of={asset.behind} pipeline={asset.pipeline} />
              ),
            ],
            ...(maker ? ([['Made by', startedBy(maker)]] as const) : []),
            ...(partitions > 1 ? ([['Partitions', count(partitions)]] as const) : []),
          ]}
        />
      </section>
      <section>
        <h3>Lineage</h3>
        <Facts
          of={[
            ['From', <Names of={asset.dependsOn} pipeline={asset.pipeline} />],
            ['Used by', <Names of={dependents} pipeline={asset.pipeline} />],
          ]}
        />
      </section>
      <Runs runs={runs} target={`${asset.pipeline}/${asset.name}`} />
      <section>
        <h3>Code</h3>
        <Facts
          of={[
            ['Queue', queue],
            ['Attempts', `at most ${count(maxAttempts)}`],
            ...(timeoutMs === undefined ? [] : ([['Timeout', duration(timeoutMs)]] as const)),
            ...(limits.length === 0 ? [] : ([['Limits', <Limits of={limits} />]] as const)),
          ]}
        />
      </section>
    </>
  )
}

function startedBy({ schedule, sensor, hook, retryOf, parent }: Run): string {
  if (hook) return `run ${hook.run}`
  if (schedule) return `schedule ${schedule.name}`
  if (sensor) return `sensor ${sensor}`
  if (parent) return `a run of ${parent.asset}`
  return retryOf ? 'a retry' : 'a request'
}

function Names({ of, pipeline }: { of: readonly string[]; pipeline: string }): JSX.Element {
  if (of.length === 0) return <>nothing</>
  return (
    <>
      {of.map((name, i) => (
        <>
          {i === 0 ? '' : ', '}
          <a class="link" href={href(['assets', pipeline, name])}>
            <code>{name}</code>
          </a>
        </>
      ))}
    </>
  )
}

function Limits({ of }: { of: readonly string[] }): JSX.Element {
  return (
    <>
      {of.map((name, i) => (
        <>
          {i === 0 ? '' : ', '}
          <a class="link" href={href(['limits', name])}>
            <code>{name}</code>
          </a>
        </>
      ))}
    </>
  )
}

function Runs({ runs, target }: { runs: readonly Run[]; target: string }): JSX.Element {
  const now = shown.value
  const bars = runBars(runs, now)
  const ended = runs.flatMap(({ requestedAt, finishedAt }) =>
    finishedAt === undefined ? [] : [Date.parse(finishedAt) - Date.parse(requestedAt)],
  )
  const usual = median(ended)
  const [last] = runs
  return (
    <section>
      <h3>{runs.length === 0 ? 'No run was asked for it' : `Last ${counted(runs.length, 'run')}`}</h3>
      {runs.length === 0 ? (
        <p class="small faint">Runs of other assets may have made it.</p>
      ) : (
        <>
          <div class="run-bars">
            {bars.map(({ id, state, height, text }) => (
              <a href={href(['runs', id])} aria-label={`Run ${id}: ${text}`} title={`${id}: ${text}`}>
                <i class={`map-${state}`} style={{ height: `${Math.round(height * 100)}%` }} />
              </a>
            ))}
          </div>
          <p class="small faint">
            {usual === undefined ? '' : `Height: how long it took. Median ${duration(usual)}. `}
            {last ? `The last was asked for at ${moment(last.requestedAt, now)}. ` : ''}
            <a class="link" href={href(['runs'], { target })}>
              All runs
            </a>
          </p>
        </>
      )}
    </section>
  )
}
