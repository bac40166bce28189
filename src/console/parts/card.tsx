/** Cards, rows, bars, tags: the plain parts of pages. */
import type { ComponentChildren, JSX } from 'preact'
import type { BarPart } from '../runs.ts'
import type { UiState } from '../words.ts'

/** `side`: at the right of its head, such as a link. */
export function Card(props: {
  title?: ComponentChildren
  side?: ComponentChildren
  class?: string
  children?: ComponentChildren
}): JSX.Element {
  const { title, side, children } = props
  return (
    <section class={`card ${props.class ?? ''}`}>
      {title === undefined ? null : (
        <header>
          <h2>{title}</h2>
          {side === undefined ? null : <div class="side-note">{side}</div>}
        </header>
      )}
      {children}
    </section>
  )
}

/** A line of a list that can be opened. `j` and `k` move among them. */
export function RowLink(props: {
  href: string
  class?: string
  isCurrent?: boolean
  children?: ComponentChildren
}): JSX.Element {
  return (
    <a
      class={`row ${props.class ?? ''} ${props.isCurrent ? 'current' : ''}`}
      href={props.href}
      data-nav
      {...(props.isCurrent ? { 'aria-current': 'true' as const } : {})}
    >
      {props.children}
    </a>
  )
}

/** A number or a word always stands beside it. */
export function Bar({ parts }: { parts: readonly BarPart[] }): JSX.Element {
  return (
    <div class="bar" aria-hidden="true">
      {parts.map(({ state, share }) =>
        share > 0 ? <i class={`fill-${state}`} style={{ width: `${Math.min(100, share * 100).toFixed(2)}%` }} /> : null,
      )}
    </div>
  )
}

export function Tag({ children }: { children?: ComponentChildren }): JSX.Element {
  return <span class="tag">{children}</span>
}

/** Names and values: `[['Started', '13:30:00']]`. */
export function Facts({ of }: { of: readonly (readonly [string, ComponentChildren])[] }): JSX.Element {
  return (
    <dl class="facts">
      {of.map(([name, value]) => (
        <>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </>
      ))}
    </dl>
  )
}

export interface Count {
  readonly name: string
  readonly value: string
  readonly state?: UiState
}

/** Counts beside each other. With `onChoose` each is a switch. */
export function CountStrip(props: {
  counts: readonly Count[]
  chosen?: string | undefined
  onChoose?: (name: string | undefined) => void
  children?: ComponentChildren
}): JSX.Element {
  const { counts, chosen, onChoose, children } = props
  return (
    <div class="card strip">
      {children === undefined ? null : <div class="strip-head">{children}</div>}
      {counts.map(({ name, value, state }) => {
        const inner = (
          <>
            <span class="strip-name">
              {state ? <i class={`swatch map-${state}`} /> : null}
              {name}
            </span>
            <span class="strip-value">{value}</span>
          </>
        )
        if (!onChoose) return <div class="strip-count">{inner}</div>
        const isChosen = chosen === name
        return (
          <button
            type="button"
            class="strip-count"
            aria-pressed={isChosen}
            onClick={() => onChoose(isChosen ? undefined : name)}
          >
            {inner}
          </button>
        )
      })}
    </div>
  )
}

/** One of a few: filters and views. */
export function Segments<T extends string>(props: {
  label: string
  options: readonly (readonly [T, ComponentChildren])[]
  value: T
  onChange: (value: T) => void
}): JSX.Element {
  return (
    <fieldset class="segments">
      <legend class="hidden">{props.label}</legend>
      {props.options.map(([value, text]) => (
        <button type="button" aria-pressed={props.value === value} onClick={() => props.onChange(value)}>
          {text}
        </button>
      ))}
    </fieldset>
  )
}

/** What is said where there is nothing, and what brings something. */
export function Empty({ children }: { children?: ComponentChildren }): JSX.Element {
  return <div class="empty">{children}</div>
}

export function Time({ of, text }: { of: string | Date | number; text: string }): JSX.Element {
  const iso = new Date(of).toISOString()
  return (
    <time dateTime={iso} title={`${iso.replace('T', ' ').replace('Z', '')} UTC`}>
      {text}
    </time>
  )
}
