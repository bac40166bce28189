/**
 * Buttons that change something. Nothing is shown before it is stored: the button is busy until the
 * server has answered, and says beside itself why it was refused. Without the scope it is not there,
 * and in the past it is off.
 */
import type { ComponentChildren, JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { Problem } from '../api/client.ts'
import { isPast } from '../state/place.ts'
import { may, type Scope } from '../state/session.ts'
import { say } from '../state/toast.ts'
import { Dialog } from './dialog.tsx'
import { Icon, type IconName } from './glyph.tsx'

export interface ActProps {
  readonly scope: Scope
  /** `key`: the same for repeats of the same press, for `Idempotency-Key`. */
  readonly act: (key: string) => Promise<unknown>
  readonly children: ComponentChildren
  readonly kind?: 'plain' | 'primary' | 'danger'
  readonly isSmall?: boolean
  readonly icon?: IconName
  readonly isOff?: boolean
  /** Asked once, for what cannot be undone: `Cancel 237,957 instances`. */
  readonly confirm?: { readonly text: string; readonly button: string }
  /** Said when it is stored, where the page does not show it. */
  readonly done?: string
  readonly onDone?: () => void
  /** A key that presses it; shown on it. */
  readonly hint?: string
  /** For keys: gets how to press it. */
  readonly press?: { current: (() => void) | undefined }
}

export function Act(props: ActProps): JSX.Element | null {
  const { scope, act, children, kind = 'plain', isSmall, icon, isOff, confirm, done, onDone, hint, press } = props
  const [isBusy, setBusy] = useState(false)
  const [refusal, setRefusal] = useState('')
  const [isAsking, setAsking] = useState(false)
  const isThere = useRef(true)
  useEffect(() => {
    isThere.current = true
    return () => {
      isThere.current = false
    }
  }, [])
  const run = async (): Promise<void> => {
    setAsking(false)
    setBusy(true)
    setRefusal('')
    try {
      await act(keyOfPress())
      if (done) say(done)
      onDone?.()
    } catch (error) {
      const text = error instanceof Problem || error instanceof Error ? error.message : String(error)
      if (isThere.current) setRefusal(text)
      else say(text)
    } finally {
      if (isThere.current) setBusy(false)
    }
  }
  const isDisabled = isBusy || isPast.value || isOff === true
  const begin = (): void => {
    if (isDisabled) return
    if (confirm) setAsking(true)
    else void run()
  }
  if (press) press.current = begin
  if (!may(scope)) return null
  return (
    <span class="act">
      <button
        type="button"
        class={`button ${kind} ${isSmall ? 'small' : ''}`}
        disabled={isDisabled}
        aria-busy={isBusy}
        {...(isPast.value ? { title: 'The past cannot be changed.' } : {})}
        onClick={begin}
      >
        {icon ? <Icon name={icon} /> : null}
        {children}
        {hint ? (
          <span class="key" aria-hidden="true">
            {hint}
          </span>
        ) : null}
      </button>
      {refusal === '' ? null : (
        <span class="refusal" role="alert">
          {refusal}
        </span>
      )}
      {isAsking && confirm ? (
        <Dialog label={confirm.button} onClose={() => setAsking(false)}>
          <div class="confirm">
            <p>{confirm.text}</p>
            <div class="line">
              <button type="button" class="button danger" onClick={() => void run()}>
                {confirm.button}
              </button>
              <button type="button" class="button" onClick={() => setAsking(false)}>
                Go back
              </button>
            </div>
          </div>
        </Dialog>
      ) : null}
    </span>
  )
}

/** `randomUUID` is only there on secure origins. */
function keyOfPress(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')
}
