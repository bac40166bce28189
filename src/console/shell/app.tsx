/** The frame of all pages, and which page is in it. */
import type { ComponentType, JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { PAGES, type Page, type PageProps, pageOf, parentOf } from '../pages.ts'
import { Answer } from '../parts/answer.tsx'
import { Empty } from '../parts/card.tsx'
import { chords, moveFocus, useKeys } from '../state/keys.ts'
import { Overview, useOverviewRead } from '../state/overview.ts'
import { address, go, href, isPast, setAt } from '../state/place.ts'
import { closed, me } from '../state/session.ts'
import { stepFact } from '../state/step.ts'
import { flipTheme } from '../state/theme.ts'
import { toast } from '../state/toast.ts'
import { Rail } from './rail.tsx'
import { Help, Search } from './search.tsx'
import { Side, Tabs } from './side.tsx'
import { SignIn } from './sign-in.tsx'
import { Top } from './top.tsx'

export function App(): JSX.Element | null {
  if (closed.value && !me.value) return <SignIn />
  if (closed.value?.status === 401) return <SignIn />
  return me.value ? <Shell /> : null
}

function Shell(): JSX.Element {
  const { path } = address.value
  const { page, ids } = pageOf({ path })
  const reading = useOverviewRead(page?.name === 'home')
  const overview = reading.data
  const [dialog, setDialog] = useState<'search' | 'help' | undefined>(undefined)
  const [isRailOpen, setRailOpen] = useState(false)
  useShellKeys(path, setDialog)
  useEffect(() => {
    const id = ids.at(-1)
    document.title = `${id === undefined ? (page?.title ?? 'Nothing here') : id} · FlowStone`
  }, [page, ids.join('/')])
  return (
    <div
      class={`shell ${isPast.value ? 'past' : ''} ${page?.hasRail ? 'no-rail' : ''} ${isRailOpen ? 'rail-open' : ''}`}
    >
      <Side current={page} overview={overview} />
      <Top page={page} path={path} onSearch={() => setDialog('search')} onRail={() => setRailOpen(!isRailOpen)} />
      <Overview.Provider value={reading}>
        <Main page={page} ids={ids} />
      </Overview.Provider>
      {page?.hasRail ? null : (
        <footer class="foot">
          <Rail />
          {isPast.value ? (
            <button type="button" class="button small narrow-only" onClick={() => setAt(undefined)}>
              Now
            </button>
          ) : null}
        </footer>
      )}
      <Tabs current={page} overview={overview} onMore={() => setDialog('search')} />
      <div class={`toast ${toast.value === '' ? '' : 'shown'}`} role="status">
        {toast.value}
      </div>
      {dialog === 'search' ? <Search overview={overview} onClose={() => setDialog(undefined)} /> : null}
      {dialog === 'help' ? <Help onClose={() => setDialog(undefined)} /> : null}
    </div>
  )
}

const loaded = new Map<string, ComponentType<PageProps>>()

/** A page that is loaded is shown at once. Another stays until the next is there. */
function Main({ page, ids }: { page: Page | undefined; ids: readonly string[] }): JSX.Element {
  const main = useRef<HTMLElement>(null)
  const [, setLoaded] = useState('')
  const [problem, setProblem] = useState('')
  useEffect(() => {
    if (!page || loaded.has(page.name)) return
    page.load().then(
      ({ default: component }) => {
        loaded.set(page.name, component)
        setLoaded(page.name)
        setProblem('')
      },
      () => setProblem('This page could not be loaded. The server may have a newer version: load it again.'),
    )
  }, [page])
  useEffect(() => main.current?.scrollTo(0, 0), [page, ids.join('/')])
  const View = page && loaded.get(page.name)
  return (
    <main class="main" tabIndex={-1} ref={main}>
      {View ? <View key={page.name} ids={ids} /> : null}
      {problem === '' ? null : <Empty>{problem}</Empty>}
      {page ? null : (
        <div class="page">
          <Answer parts={[{ text: 'There is nothing at this address. ' }, { text: 'Home', href: href([]) }]} />
        </div>
      )}
    </main>
  )
}

function useShellKeys(path: readonly string[], setDialog: (dialog: 'search' | 'help') => void): void {
  useEffect(() => {
    for (const { name, nav } of PAGES) if (nav) chords.set(nav.letter, () => go([name]))
  }, [])
  useKeys({
    '/': () => setDialog('search'),
    '?': () => setDialog('help'),
    j: () => moveFocus(1),
    k: () => moveFocus(-1),
    t: flipTheme,
    n: () => setAt(undefined),
    '[': () => void stepFact(-1),
    ']': () => void stepFact(1),
    Escape: () => {
      const active = document.activeElement
      if (active instanceof HTMLElement && active.matches('input, textarea, select')) {
        active.blur()
        return
      }
      const parent = parentOf(path)
      if (parent) go(parent)
    },
  })
}
