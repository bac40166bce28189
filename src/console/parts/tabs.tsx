/** Views of one thing, of which one is shown. */
import type { ComponentChildren, JSX } from 'preact'
import { useId } from 'preact/hooks'

export function Tabs<T extends string>(props: {
  label: string
  options: readonly (readonly [T, ComponentChildren])[]
  value: T
  onChange: (value: T) => void
  children?: ComponentChildren
}): JSX.Element {
  const { label, options, value, onChange, children } = props
  const id = useId()
  const move = (by: number): void => {
    const now = options.findIndex(([one]) => one === value)
    const next = options[(now + by + options.length) % options.length]
    if (!next) return
    onChange(next[0])
    document.getElementById(`${id}-${next[0]}`)?.focus()
  }
  return (
    <>
      <div class="view-tabs" role="tablist" aria-label={label}>
        {options.map(([one, text]) => (
          <button
            type="button"
            role="tab"
            id={`${id}-${one}`}
            aria-selected={one === value}
            aria-controls={`${id}-panel`}
            tabIndex={one === value ? 0 : -1}
            onClick={() => onChange(one)}
            onKeyDown={(event) => {
              const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
              if (by === undefined) return
              event.preventDefault()
              move(by)
            }}
          >
            {text}
          </button>
        ))}
      </div>
      <div role="tabpanel" id={`${id}-panel`} aria-labelledby={`${id}-${value}`}>
        {children}
      </div>
    </>
  )
}
