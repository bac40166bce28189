/** Icons, and the glyph of each state: no meaning rests on colour. */
import type { JSX } from 'preact'
import { STATE_WORDS, type UiState } from '../words.ts'

const ICONS = {
  home: 'M2.5 7 8 2.5 13.5 7v6.500h-4v-4h-3v4h-4z',
  graph: 'M1.5 6h4v4h-4zM10.5 2h4v4h-4zM10.5 10h4v4h-4zM5.5 8h2.200M10.5 4H9.200Q7.7 4 7.7 5.500v5q0 1.5 1.5 1.500h1.3',
  runs: 'M2 4h7M5 8h9M4 12h6',
  inbox: 'M2 9.5 4 3h8l2 6.500V13H2zM2 9.500h3.500l1 2h3l1-2H14',
  limit: 'M2.5 12a6.2 6.2 0 1 1 11 0M8 9.5 11 6',
  clock: 'M2 8a6 6 0 1 0 12 0a6 6 0 1 0-12 0M8 4.500V8l2.5 1.5',
  server: 'M2 2.500h12V7H2zM2 9h12v4.500H2zM4.8 4.750h.01M4.8 11.250h.01',
  log: 'M2 3.500h12M2 6.500h12M2 9.500h8M2 12.500h5',
  person: 'M5 5a3 3 0 1 0 6 0a3 3 0 1 0-6 0M2.500 14c0-3 2.500-4.500 5.500-4.500s5.500 1.500 5.500 4.500',
  find: 'M2.5 7a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0M10.5 10.500l3 3',
  pause: 'M5.5 3.500v9M10.5 3.500v9',
  play: 'M4.5 3l8 5-8 5z',
  retry: 'M13 8a5 5 0 1 1-1.5-3.600M13.2 2v3h-3',
  close: 'm4 4 8 8M12 4l-8 8',
  plus: 'M8 3v10M3 8h10',
  left: 'M9.8 3.5 5.5 8l4.3 4.5',
  right: 'M6.2 3.5 10.5 8l-4.3 4.5',
  down: 'm3.5 6.2 4.5 4.3 4.5-4.3',
  more: 'M2.5 4.500h11M2.5 8h11M2.5 11.500h11',
} as const
export type IconName = keyof typeof ICONS

/** Decoration: what it stands for is said in words beside it, or on its button. */
export function Icon({ name }: { name: IconName | 'theme' }): JSX.Element {
  if (name === 'theme')
    return (
      <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
        <circle cx="8" cy="8" r="5.5" />
        <path d="M8 2.500v11a5.5 5.5 0 0 0 0-11z" fill="currentColor" stroke="none" />
      </svg>
    )
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
      <path d={ICONS[name]} />
    </svg>
  )
}

export function Brand(): JSX.Element {
  const wave = 'c2.7-2 5.3-2 8 0s5.3 2 8 0v2.600c-2.7 2-5.3 2-8 0s-5.3-2-8 0z'
  return (
    <svg viewBox="0 0 20 20" width="20" height="20" fill="currentColor" aria-hidden="true">
      <path d={`M2 4.6${wave}`} />
      <path d={`M2 9.6${wave}`} opacity=".62" />
      <path d={`M2 14.6${wave}`} opacity=".3" />
    </svg>
  )
}

const line = { fill: 'none', stroke: 'currentColor', 'stroke-linecap': 'round', 'stroke-linejoin': 'round' } as const

export const GLYPHS: Readonly<Record<UiState, JSX.Element>> = {
  done: (
    <>
      <circle cx="7" cy="7" r="6.2" fill="currentColor" opacity=".16" />
      <path d="M4.2 7.2 6.2 9.2 9.9 5" {...line} stroke-width="1.6" />
    </>
  ),
  run: (
    <>
      <circle cx="7" cy="7" r="5.2" {...line} stroke-width="1.8" opacity=".28" />
      <path class="turning" d="M7 1.800A5.2 5.2 0 0 1 12.2 7" {...line} stroke-width="1.8" />
    </>
  ),
  wait: <circle cx="7" cy="7" r="5.2" {...line} stroke-width="1.5" stroke-dasharray="2.1 2" />,
  retry: <path d="M11.8 7a4.8 4.8 0 1 1-1.5-3.500M10.6 1v2.800H7.8" {...line} stroke-width="1.6" />,
  gate: (
    <>
      <path
        d="M7 1.2 12.8 7 7 12.8 1.2 7z"
        fill="currentColor"
        fill-opacity=".18"
        stroke="currentColor"
        stroke-width="1.4"
        stroke-linejoin="round"
      />
      <circle cx="7" cy="7" r="1.5" fill="currentColor" />
    </>
  ),
  fail: (
    <>
      <rect x="1" y="1" width="12" height="12" rx="3.4" fill="currentColor" />
      <path class="glyph-cross" d="m4.8 4.8 4.4 4.400m0-4.400L4.8 9.2" stroke-width="1.6" stroke-linecap="round" />
    </>
  ),
  off: (
    <>
      <circle cx="7" cy="7" r="5.2" {...line} stroke-width="1.4" />
      <path d="m3.5 10.5 7-7" {...line} stroke-width="1.4" />
    </>
  ),
  late: (
    <>
      <circle cx="7" cy="7" r="5.4" {...line} stroke-width="1.5" />
      <path d="M7 4v3.200l2 1.4" {...line} stroke-width="1.5" />
    </>
  ),
}

/** `label`: in place of the usual word. An empty one: the word stands beside it. */
export function State({ state, label }: { state: UiState; label?: string }): JSX.Element {
  const text = label ?? STATE_WORDS[state]
  const names = text === '' ? { 'aria-hidden': true as const } : { role: 'img' as const, 'aria-label': text }
  return (
    <svg class={`state tone-${state}`} viewBox="0 0 14 14" {...names}>
      {GLYPHS[state]}
    </svg>
  )
}
