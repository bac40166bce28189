/** A window over the page, for search, help, and what cannot be undone. */
import type { ComponentChildren, JSX } from 'preact'
import { useEffect, useRef } from 'preact/hooks'

export function Dialog(props: { label: string; onClose: () => void; children?: ComponentChildren }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    dialog.current?.showModal()
  }, [])
  return (
    <dialog
      ref={dialog}
      aria-label={props.label}
      onClose={props.onClose}
      // Outside of it is its backdrop, which is the dialog itself.
      onClick={(event) => {
        if (event.target === dialog.current) props.onClose()
      }}
      onKeyDown={() => {}}
    >
      {props.children}
    </dialog>
  )
}
