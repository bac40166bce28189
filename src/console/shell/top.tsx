/** The bar above a page: where it is, search, and which moment it shows. */
import type { JSX } from 'preact'
import { moment, shortId } from '../format.ts'
import type { Page } from '../pages.ts'
import { Icon } from '../parts/glyph.tsx'
import { present } from '../state/clock.ts'
import { liveState } from '../state/live.ts'
import { at, href, setAt } from '../state/place.ts'
import { flipTheme } from '../state/theme.ts'

export interface TopProps {
  readonly page: Page | undefined
  readonly path: readonly string[]
  readonly onSearch: () => void
  readonly onRail: () => void
}

export function Top({ page, path, onSearch, onRail }: TopProps): JSX.Element {
  return (
    <header class="top">
      <Crumbs page={page} path={path} />
      <span class="space" />
      <button type="button" class="search" onClick={onSearch}>
        <Icon name="find" />
        <span class="search-word">Search</span>
        <span class="key" aria-hidden="true">
          /
        </span>
      </button>
      <Now onRail={onRail} />
      <button type="button" class="icon-button" aria-label="Light or dark" onClick={flipTheme}>
        <Icon name="theme" />
      </button>
    </header>
  )
}

function Crumbs({ page, path }: Pick<TopProps, 'page' | 'path'>): JSX.Element {
  const [first, ...ids] = path
  if (first === undefined || ids.length === 0)
    return (
      <div class="crumbs">
        <b>{page?.title ?? 'Nothing here'}</b>
      </div>
    )
  const title = first === 'runs' ? 'Runs' : (page?.title ?? first)
  return (
    <div class="crumbs">
      <a href={href([first])}>{title}</a>
      {ids.map((id, i) => {
        const text = i === 0 && (first === 'runs' || first === 'inbox') ? shortName(id) : id
        return (
          <>
            <span aria-hidden="true">/</span>
            {i === ids.length - 1 ? (
              <b class="cut" title={id}>
                {text}
              </b>
            ) : (
              <a href={href(path.slice(0, i + 2))} title={id}>
                {text}
              </a>
            )}
          </>
        )
      })}
    </div>
  )
}

/** Of a run its end, of a gate its asset. */
function shortName(id: string): string {
  return id.split('.')[1] ?? shortId(id)
}

const WORDS = { off: 'Not live', connecting: 'Live', live: 'Live', away: 'No connection' } as const

/** On a phone it opens the rail. */
function Now({ onRail }: { onRail: () => void }): JSX.Element {
  const then = at.value
  const state = liveState.value
  if (then)
    return (
      <>
        <button
          type="button"
          class="moment is-past"
          onClick={onRail}
          aria-label={`As it was at ${moment(then, present.value, true)}. Time rail`}
        >
          <i aria-hidden="true" />
          <span class="wide-only">As it was at {moment(then, present.value, true)}</span>
          <span class="narrow-only">{moment(then, present.value, true)}</span>
        </button>
        <button type="button" class="button small back-to-now" onClick={() => setAt(undefined)}>
          Back to now
        </button>
      </>
    )
  return (
    <button
      type="button"
      class="moment"
      onClick={onRail}
      title="The page follows what happens. Drag the rail below to see another moment."
    >
      <i class={`dot-${state}`} aria-hidden="true" />
      {WORDS[state]}
    </button>
  )
}
