/** Search by name, and the list of keys. */
import type { JSX } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import type { Asset, Gate, Home, Run } from '../api/types.ts'
import { shortId } from '../format.ts'
import { PAGES } from '../pages.ts'
import { Dialog } from '../parts/dialog.tsx'
import { Icon, type IconName } from '../parts/glyph.tsx'
import { letters, setLetters } from '../state/keys.ts'
import { at, href } from '../state/place.ts'
import { client } from '../state/session.ts'

interface Found {
  readonly icon: IconName
  readonly name: string
  readonly about: string
  readonly path: readonly string[]
}

const MOST = 40
const RUNS_FOUND = 200

/** All that has a name and is known without a search on the server. */
async function everything(overview: Home | undefined): Promise<Found[]> {
  const when = at.value ? { at: at.value } : {}
  const [assets, runs, gates] = await Promise.all([
    client.get<{ assets: Asset[] }>({ path: '/assets' }, when).then(({ assets: found }) => found, none),
    client
      .get<{ runs: Run[] }>({ path: '/runs', query: { limit: RUNS_FOUND } }, when)
      .then(({ runs: found }) => found, none),
    Promise.resolve(overview?.gates.shown ?? []),
  ])
  return [
    ...assets.map(
      ({ pipeline, name }): Found => ({
        icon: 'graph',
        name: `${pipeline}/${name}`,
        about: 'asset',
        path: ['assets', pipeline, name],
      }),
    ),
    ...gates.map((gate: Gate): Found => ({ icon: 'inbox', name: gate.id, about: 'gate', path: ['inbox', gate.id] })),
    ...runs.map(
      ({ id, target, pipeline, status }): Found => ({
        icon: 'runs',
        name: `${pipeline}/${target} ${id}`,
        about: status,
        path: ['runs', id],
      }),
    ),
  ]
}

function none(): never[] {
  return []
}

const PAGES_FOUND: readonly Found[] = PAGES.flatMap(({ name, title, nav }) =>
  nav ? [{ icon: nav.icon, name: title, about: `g ${nav.letter}`, path: [name] }] : [],
)

export function Search({ overview, onClose }: { overview: Home | undefined; onClose: () => void }): JSX.Element {
  const [all, setAll] = useState(PAGES_FOUND)
  const [text, setText] = useState('')
  const [current, setCurrent] = useState(0)
  useEffect(() => {
    void everything(overview).then((found) => setAll([...PAGES_FOUND, ...found]))
  }, [])
  const words = text.toLowerCase().split(/\s+/).filter(Boolean)
  const isFound = ({ name }: Found): boolean => words.every((word) => name.toLowerCase().includes(word))
  const found = all.filter(isFound).slice(0, MOST)
  const chosen = Math.min(current, Math.max(0, found.length - 1))
  const open = (one: Found | undefined): void => {
    if (!one) return
    location.hash = href(one.path)
    onClose()
  }
  return (
    <Dialog label="Search" onClose={onClose}>
      <input
        class="palette-field"
        type="text"
        role="combobox"
        aria-label="Asset, run, gate or page"
        aria-expanded="true"
        aria-controls="palette"
        {...(found.length > 0 ? { 'aria-activedescendant': `found-${chosen}` } : {})}
        placeholder="Find an asset, run, gate or page"
        autocomplete="off"
        spellcheck={false}
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value)
          setCurrent(0)
        }}
        onKeyDown={(event) => {
          const by = { ArrowDown: 1, ArrowUp: -1 }[event.key]
          if (event.key === 'Enter') open(found[chosen])
          else if (by === undefined) return
          else setCurrent(Math.max(0, Math.min(found.length - 1, chosen + by)))
          event.preventDefault()
        }}
      />
      <div class="palette" id="palette" role="listbox" aria-label="Found">
        {found.map((one, i) => (
          <div
            id={`found-${i}`}
            role="option"
            tabIndex={-1}
            aria-selected={i === chosen}
            class={`row ${i === chosen ? 'current' : ''}`}
            ref={i === chosen ? intoView : null}
            onClick={() => open(one)}
            onKeyDown={() => {}}
          >
            <Icon name={one.icon} />
            <span class="cut" title={one.name}>
              {one.path[0] === 'runs' && one.path[1] ? one.name.replace(one.path[1], shortId(one.path[1])) : one.name}
            </span>
            <span class="small faint">{one.about}</span>
          </div>
        ))}
      </div>
      {found.length === 0 ? <p class="empty">Nothing has that name.</p> : null}
    </Dialog>
  )
}

function intoView(element: HTMLElement | null): void {
  element?.scrollIntoView({ block: 'nearest' })
}

const KEYS: readonly (readonly [string, string])[] = [
  ['/', 'Search'],
  ['j k', 'Next, previous'],
  ['Enter', 'Open'],
  ['Esc', 'Back'],
  ['g …', PAGES.flatMap(({ title, nav }) => (nav ? `${nav.letter} ${title}` : [])).join(', ')],
  ['[ ]', 'One fact back, one on'],
  ['n', 'Back to now'],
  ['t', 'Light or dark'],
  ['a r', 'Approve or reject the gate that is open in the inbox'],
  ['?', 'This list'],
]

export function Help({ onClose }: { onClose: () => void }): JSX.Element {
  return (
    <Dialog label="Keys" onClose={onClose}>
      <dl class="key-list">
        {KEYS.map(([keys, what]) => (
          <>
            <dt>
              {keys.split(' ').map((one) => (
                <kbd>{one}</kbd>
              ))}
            </dt>
            <dd>{what}</dd>
          </>
        ))}
      </dl>
      <div class="key-switch">
        <label>
          <input
            type="checkbox"
            checked={letters.value}
            onChange={(event) => setLetters(event.currentTarget.checked)}
          />
          Single letters do something
        </label>
        <button type="button" class="button small" onClick={onClose}>
          Close
        </button>
      </div>
    </Dialog>
  )
}
