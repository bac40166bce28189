/** The side bar; on a phone, the tab bar. */
import type { JSX } from 'preact'
import type { Home } from '../api/types.ts'
import { count, counted } from '../format.ts'
import { PAGES, type Page } from '../pages.ts'
import { Brand, Icon, State } from '../parts/glyph.tsx'
import { useWorkers } from '../state/overview.ts'
import { href } from '../state/place.ts'
import { hasKey, me, role, signOut } from '../state/session.ts'

const NAV = PAGES.filter(({ nav }) => nav !== undefined)
const TABS = ['home', 'assets', 'runs', 'inbox']

export interface NavProps {
  readonly current: Page | undefined
  readonly overview: Home | undefined
}

export function Side({ current, overview }: NavProps): JSX.Element {
  const workers = useWorkers().data
  return (
    <aside class="side" aria-label="FlowStone">
      <button type="button" class="skip" onClick={() => document.querySelector('main')?.focus()}>
        To the page
      </button>
      <a class="brand" href={href([])}>
        <Brand />
        FlowStone
      </a>
      <div class="namespace">
        <span class="hidden">Namespace </span>
        <span class="cut">{me.value?.namespace}</span>
      </div>
      <nav aria-label="Pages">
        {[1, 2, 3].map((group) => (
          <ul>
            {NAV.filter(({ nav }) => nav?.group === group).map((page) => (
              <li>
                <NavLink page={page} current={current} overview={overview} />
              </li>
            ))}
          </ul>
        ))}
      </nav>
      <div class="side-foot">
        {workers ? <Health workers={workers.workers} shards={workers.shards} /> : null}
        <span>
          {VERSION} · {hasKey.value ? `as ${me.value?.key}, ${role.value}` : role.value}
        </span>
        {hasKey.value ? (
          <button type="button" class="text-button" onClick={signOut}>
            Sign out
          </button>
        ) : null}
      </div>
    </aside>
  )
}

function NavLink({ page, current, overview }: NavProps & { page: Page }): JSX.Element {
  const isCurrent = current?.name === page.name || current?.of === page.name
  const { text, isHot } = badge(page.name, overview)
  return (
    <a href={href([page.name])} {...(isCurrent ? { 'aria-current': 'page' as const } : {})}>
      {page.nav ? <Icon name={page.nav.icon} /> : null}
      {page.title}
      {text === '' ? null : <span class={isHot ? 'badge hot' : 'badge'}>{text}</span>}
    </a>
  )
}

function badge(name: string, overview: Home | undefined): { text: string; isHot: boolean } {
  const of =
    name === 'runs'
      ? { ...overview?.runs, n: overview?.runs.open }
      : name === 'inbox'
        ? { ...overview?.gates, n: overview?.gates.waiting }
        : undefined
  return { text: of?.n ? `${count(of.n)}${of.more ? '+' : ''}` : '', isHot: name === 'inbox' }
}

function Health({
  workers,
  shards,
}: {
  workers: readonly { state: string }[]
  shards: readonly { engine?: string | undefined }[]
}): JSX.Element {
  const silent = workers.filter(({ state }) => state === 'silent').length
  const there = workers.length - silent
  const engines = new Set(shards.flatMap(({ engine }) => engine ?? [])).size
  return (
    <>
      {silent > 0 || there === 0 ? (
        <b>
          <State state="late" label="" />
          {silent > 0 ? `${counted(silent, 'worker')} ${silent === 1 ? 'is' : 'are'} silent` : 'No worker'}
        </b>
      ) : null}
      <span>
        {counted(engines, 'engine')}, {counted(there, 'worker')}
      </span>
    </>
  )
}

export function Tabs({ current, overview, onMore }: NavProps & { onMore: () => void }): JSX.Element {
  return (
    <nav class="tabs" aria-label="Pages of the phone">
      {NAV.filter(({ name }) => TABS.includes(name)).map((page) => (
        <NavLink page={page} current={current} overview={page.name === 'inbox' ? overview : undefined} />
      ))}
      <button type="button" onClick={onMore}>
        <Icon name="more" />
        More
      </button>
    </nav>
  )
}
