/** A panel at the right, for one thing of a page. Esc closes it. */
import type { ComponentChildren, JSX } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { useKeys } from '../state/keys.ts'
import { Icon } from './glyph.tsx'

export function Drawer(props: {
  title: ComponentChildren
  label: string
  onClose: () => void
  children?: ComponentChildren
}): JSX.Element {
  const close = useRef<HTMLButtonElement>(null)
  useKeys({ Escape: props.onClose })
  useEffect(() => {
    const before = document.activeElement
    close.current?.focus()
    return () => {
      if (before instanceof HTMLElement) before.focus()
    }
  }, [])
  return (
    <aside class="drawer" aria-label={props.label}>
      <header>
        <h2>{props.title}</h2>
        <button type="button" class="icon-button" aria-label="Close" ref={close} onClick={props.onClose}>
          <Icon name="close" />
        </button>
      </header>
      {props.children}
    </aside>
  )
}
