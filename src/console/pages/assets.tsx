/** Assets: what is fresh, what is not? */
import type { JSX } from 'preact'
import { useMemo } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import {
  type AssetShow,
  assetsAnswer,
  countStates,
  isFound,
  isShown,
  NODE_WORDS,
  type NodeInfo,
  nodeInfos,
} from '../assets.ts'
import { count, counted } from '../format.ts'
import { graphInput, nodeId } from '../graph.ts'
import { Answer } from '../parts/answer.tsx'
import { Empty, Segments } from '../parts/card.tsx'
import { State } from '../parts/glyph.tsx'
import { GraphView } from '../parts/graph-view.tsx'
import { VirtualList } from '../parts/list.tsx'
import { Loaded } from '../parts/notice.tsx'
import { shown } from '../state/clock.ts'
import { useKeys } from '../state/keys.ts'
import { useLayout } from '../state/layout.ts'
import { isNarrow } from '../state/narrow.ts'
import { address, go, href, setQuery } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { AssetPanel } from './asset.tsx'

const TOPICS = { runs: true, gates: true } as const
const REST_MS = 1500
const ROW = 56

export default function Assets({ ids }: { ids: readonly string[] }): JSX.Element {
  const reading = useRead(reads.assets(), { on: TOPICS, restMs: REST_MS, everyMs: 15_000 })
  const scatters = useRead(reads.home(), { on: TOPICS, restMs: REST_MS, everyMs: 5000 }).data?.scatters ?? []
  const gates = useRead(reads.gates(), { on: { gates: true }, restMs: REST_MS }).data?.gates ?? []
  return (
    <div class="page-full assets">
      <Loaded reading={reading}>
        {({ assets }) => <View infos={nodeInfos(assets, scatters, gates, shown.value)} ids={ids} />}
      </Loaded>
    </div>
  )
}

function View({ infos, ids }: { infos: ReadonlyMap<string, NodeInfo>; ids: readonly string[] }): JSX.Element {
  const { query } = address.value
  const show = (query.show ?? 'all') as AssetShow
  const search = (query.q ?? '').trim()
  const all = [...infos.values()]
  const [pipeline, name] = ids
  const selected = pipeline !== undefined && name !== undefined ? infos.get(nodeId(pipeline, name)) : undefined
  useKeys({ ...(ids.length > 0 ? { Escape: () => go(['assets'], kept(query)) } : {}) })
  if (all.length === 0)
    return (
      <div class="page">
        <Answer parts={assetsAnswer(all, href)} />
        <Empty>
          <code>flowstone dev FILE</code> registers the pipelines of a file.
        </Empty>
      </div>
    )
  const isWanted = (info: NodeInfo): boolean => isShown(info, show) && isFound(info.id, search)
  return (
    <>
      <Head all={all} show={show} isPanel={selected !== undefined} />
      {isNarrow.value ? (
        selected ? (
          <AssetPanel info={selected} isAlone />
        ) : (
          <List infos={all.filter(isWanted)} />
        )
      ) : (
        <div class={`assets-frame ${selected ? 'has-panel' : ''}`}>
          <Graph infos={infos} all={all} pipeline={pipeline} selected={selected} search={search} isWanted={isWanted} />
          {selected ? <AssetPanel key={selected.id} info={selected} /> : null}
        </div>
      )}
    </>
  )
}

/** What of the address a link of this page keeps. */
function kept({ show, q }: Readonly<Record<string, string>>): Record<string, string> {
  return { ...(show ? { show } : {}), ...(q ? { q } : {}) }
}

function Head({ all, show, isPanel }: { all: readonly NodeInfo[]; show: AssetShow; isPanel: boolean }): JSX.Element {
  const counts = countStates(all)
  const pipelines = new Set(all.map(({ asset }) => asset.pipeline)).size
  const option = (value: AssetShow, word: string, n: number): [AssetShow, string][] =>
    n > 0 || show === value ? [[value, `${word} ${count(n)}`]] : []
  const options = [
    ...option('all', 'All', all.length),
    ...option('run', 'Running', counts.run),
    ...option('wait', 'Waits', counts.wait),
    ...option('gate', 'At a gate', counts.gate),
    ...option('fail', 'Failed', counts.fail),
    ...option('late', 'Behind', counts.late),
    ...option('none', 'Not made', counts.off),
  ]
  return (
    <div class={`assets-head ${isPanel ? 'is-open' : ''}`}>
      <Answer parts={assetsAnswer(all, href)} />
      <div class="line assets-tools">
        <Segments
          label="Which assets"
          value={show}
          options={options}
          onChange={(value) => setQuery({ show: value === 'all' ? '' : value })}
        />
        <input
          type="text"
          class="assets-search"
          aria-label="Find an asset"
          placeholder="Find an asset"
          autocomplete="off"
          spellcheck={false}
          value={address.value.query.q ?? ''}
          onInput={(event) => setQuery({ q: event.currentTarget.value })}
        />
        <span class="space" />
        <span class="small faint assets-count">
          {counted(pipelines, 'pipeline')}, {counted(all.length, 'asset')}
        </span>
      </div>
    </div>
  )
}

function Graph(props: {
  infos: ReadonlyMap<string, NodeInfo>
  all: readonly NodeInfo[]
  pipeline: string | undefined
  selected: NodeInfo | undefined
  search: string
  isWanted: (info: NodeInfo) => boolean
}): JSX.Element {
  const { infos, all, pipeline, selected, search, isWanted } = props
  const input = useMemo(() => graphInput(all.map(({ asset }) => asset)), [graphOf(all)])
  const layout = useLayout(input)
  if (!layout)
    return (
      <div class="graph-frame">
        <Empty>The graph is being laid out.</Empty>
      </div>
    )
  // An address with a pipeline alone shows the first of its assets.
  const first = search === '' ? undefined : all.find(isWanted)
  const ofPipeline = selected ? undefined : all.find(({ asset }) => asset.pipeline === pipeline)
  return (
    <GraphView
      layout={layout}
      infos={infos}
      selected={selected?.id}
      isDim={(info) => !isWanted(info)}
      query={kept(address.value.query)}
      found={first?.id ?? ofPipeline?.id}
    />
  )
}

function graphOf(all: readonly NodeInfo[]): string {
  return all.map(({ id, asset }) => `${id}:${asset.dependsOn.join()}`).join()
}

/** In place of the graph on a phone. */
function List({ infos }: { infos: readonly NodeInfo[] }): JSX.Element {
  if (infos.length === 0) return <Empty>No asset is like this.</Empty>
  return (
    <VirtualList
      label="Assets"
      class="asset-list"
      rows={infos}
      rowHeight={ROW}
      keyOf={({ id }) => id}
      row={({ asset, state, line }, place) => (
        <a
          class="list-row asset-row"
          style={place}
          data-nav
          href={href(['assets', asset.pipeline, asset.name], kept(address.value.query))}
        >
          <State state={state} label={NODE_WORDS[state]} />
          <span class="cut">
            <code class="strong">{asset.name}</code> <span class="small faint">{asset.pipeline}</span>
          </span>
          <span class="small faint">{asset.kind === 'asset' ? '' : asset.kind}</span>
          <span class="second cut">{line}</span>
        </a>
      )}
    />
  )
}
