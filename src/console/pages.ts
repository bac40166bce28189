/**
 * The pages. Each is loaded when it is opened. A new page is one line here, a file in `pages/`,
 * and a sheet in `style/`.
 */
import type { JSX } from 'preact'
import type { IconName } from './parts/glyph.tsx'
import type { Address } from './state/address.ts'

export interface PageProps {
  /** Parts of the address behind the name of the page. */
  readonly ids: readonly string[]
}

export interface Page {
  readonly name: string
  readonly title: string
  readonly load: () => Promise<{ default: (props: PageProps) => JSX.Element }>
  /** In the side bar: its icon, and the letter behind `g`. */
  readonly nav?: { readonly icon: IconName; readonly letter: string; readonly group: 1 | 2 | 3 }
  /** Of a page that is not in the side bar: the one that stands for it there. */
  readonly of?: string
  /** It has a large time rail of its own. */
  readonly hasRail?: boolean
}

export const PAGES: readonly Page[] = [
  { name: 'home', title: 'Home', nav: { icon: 'home', letter: 'h', group: 1 }, load: () => import('./pages/home.tsx') },
  {
    name: 'assets',
    title: 'Assets',
    nav: { icon: 'graph', letter: 'a', group: 1 },
    load: () => import('./pages/assets.tsx'),
  },
  { name: 'runs', title: 'Runs', nav: { icon: 'runs', letter: 'r', group: 1 }, load: () => import('./pages/runs.tsx') },
  { name: 'run', title: 'Run', of: 'runs', load: () => import('./pages/run.tsx') },
  { name: 'scatter', title: 'Scatter', of: 'runs', load: () => import('./pages/scatter.tsx') },
  {
    name: 'inbox',
    title: 'Inbox',
    nav: { icon: 'inbox', letter: 'i', group: 1 },
    load: () => import('./pages/inbox.tsx'),
  },
  {
    name: 'limits',
    title: 'Limits',
    nav: { icon: 'limit', letter: 'l', group: 2 },
    load: () => import('./pages/limits.tsx'),
  },
  {
    name: 'schedules',
    title: 'Schedules',
    nav: { icon: 'clock', letter: 's', group: 2 },
    load: () => import('./pages/schedules.tsx'),
  },
  {
    name: 'workers',
    title: 'Workers',
    nav: { icon: 'server', letter: 'w', group: 3 },
    load: () => import('./pages/workers.tsx'),
  },
  {
    name: 'log',
    title: 'Log',
    nav: { icon: 'log', letter: 'o', group: 3 },
    hasRail: true,
    load: () => import('./pages/log.tsx'),
  },
  {
    name: 'audit',
    title: 'Audit',
    nav: { icon: 'person', letter: 'u', group: 3 },
    load: () => import('./pages/audit.tsx'),
  },
]

/** `#/runs/ID` is a run, `#/runs/ID/ASSET` a scatter of it; else the first part names the page. */
export function pageOf({ path }: Pick<Address, 'path'>): { page: Page | undefined; ids: readonly string[] } {
  const [first = 'home', ...ids] = path
  const name = first === 'runs' ? (['runs', 'run', 'scatter'][Math.min(ids.length, 2)] ?? 'runs') : first
  const hidden = name === first || first === 'runs'
  return { page: hidden ? PAGES.find((page) => page.name === name) : undefined, ids }
}

/** Where Esc leads. */
export function parentOf(path: readonly string[]): readonly string[] | undefined {
  return path.length > 1 ? path.slice(0, -1) : undefined
}
