/** The keyboard. Single letters can be turned off, and are off in fields. */
import { signal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'

const STORED = 'flowstone.letters'

function stored(): boolean {
  try {
    return localStorage.getItem(STORED) !== 'off'
  } catch {
    return true
  }
}

/** Whether single letters do something. */
export const letters = signal(stored())

export function setLetters(isOn: boolean): void {
  letters.value = isOn
  try {
    localStorage.setItem(STORED, isOn ? 'on' : 'off')
  } catch {
    // It lasts as long as the tab.
  }
}

export type KeyActions = Readonly<Record<string, (event: KeyboardEvent) => void>>

/** Those that came last are asked first: a drawer before its page before the shell. */
const stack: { readonly actions: () => KeyActions }[] = []

/** What keys do while the component is there: by `event.key`. */
export function useKeys(actions: KeyActions): void {
  const latest = useRef(actions)
  latest.current = actions
  useEffect(() => {
    const entry = { actions: () => latest.current }
    stack.push(entry)
    return () => {
      stack.splice(stack.indexOf(entry), 1)
    }
  }, [])
}

const CHORD_MS = 1500
/** When `g` was pressed. By the events and not by the clock: a busy page hears of both late. */
let chordAt = Number.NEGATIVE_INFINITY
/** What a letter behind `g` does. It goes before all that the letter does by itself. */
export const chords = new Map<string, () => void>()

addEventListener('keydown', (event) => {
  if (event.defaultPrevented || event.metaKey || event.ctrlKey || event.altKey) return
  const { target } = event
  const isField = target instanceof HTMLElement && target.matches('input, textarea, select, [contenteditable]')
  const isOpen = document.querySelector('dialog[open]') !== null
  if (isOpen || (isField && event.key !== 'Escape')) return
  const isLetter = event.key.length === 1
  if (isLetter && !letters.value) return
  const isChord = event.timeStamp - chordAt < CHORD_MS
  chordAt = Number.NEGATIVE_INFINITY
  if (isChord || event.key === 'g') {
    event.preventDefault()
    if (isChord) chords.get(event.key)?.()
    else chordAt = event.timeStamp
    return
  }
  const action = stack.findLast(({ actions }) => event.key in actions())?.actions()[event.key]
  if (!action) return
  event.preventDefault()
  action(event)
})

/** Moves the focus among what can be opened on the page. */
export function moveFocus(by: 1 | -1): void {
  const all = [...document.querySelectorAll<HTMLElement>('main [data-nav]')]
  const now = all.indexOf(document.activeElement as HTMLElement)
  const next = all[Math.max(0, Math.min(all.length - 1, now + by))]
  next?.focus()
  next?.scrollIntoView({ block: 'nearest' })
}
