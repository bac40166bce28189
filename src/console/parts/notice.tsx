/** What is said when a page gets no answer. The last data stays, and is dimmed. */
import type { ComponentChildren, JSX } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { clock, moment } from '../format.ts'
import { shown } from '../state/clock.ts'
import { at, setAt } from '../state/place.ts'
import { isPassing, type Reading } from '../state/read.ts'
import { State } from './glyph.tsx'

const LATE_MS = 800

/** `children`: gets the data. */
export function Loaded<T>(props: { reading: Reading<T>; children: (data: T) => ComponentChildren }): JSX.Element {
  const { data, problem, isOld } = props.reading
  const shade = problem ? 'dim' : isOld ? 'dim late' : ''
  return (
    <>
      {problem ? <Notice reading={props.reading} /> : null}
      {data !== undefined ? <div class={`shade ${shade}`}>{props.children(data)}</div> : problem ? null : <Late />}
    </>
  )
}

/** Nothing, at first: most answers are there before anybody would read this. */
function Late(): JSX.Element | null {
  const [isLate, setLate] = useState(false)
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), LATE_MS)
    return () => clearTimeout(timer)
  }, [])
  return isLate ? <p class="faint">Reading.</p> : null
}

export function Notice<T>({ reading }: { reading: Reading<T> }): JSX.Element | null {
  const { problem, since } = reading
  if (!problem) return null
  if (problem.reason === 'not_kept' && at.value)
    return (
      <div class="notice" role="status">
        <State state="wait" label="" />
        <span>How this was at {moment(at.value, shown.value, true)} is not kept.</span>
        <button type="button" class="button small" onClick={() => setAt(undefined)}>
          Back to now
        </button>
      </div>
    )
  const text = isPassing(problem)
    ? `${since === undefined ? 'No answer yet' : `No answer since ${clock(since)}`}. Trying again.`
    : problem.message
  return (
    <div class="notice" role="status">
      <State state={isPassing(problem) ? 'late' : 'fail'} label="" />
      <span>{text}</span>
    </div>
  )
}

/** Stands in place of a page that can only show the present. */
export function NotKept({ title, what }: { title: string; what: string }): JSX.Element {
  return (
    <div class="page">
      <h1>{title}</h1>
      <div class="notice" role="status">
        <State state="wait" label="" />
        <span>{what}</span>
        <button type="button" class="button small" onClick={() => setAt(undefined)}>
          Back to now
        </button>
      </div>
    </div>
  )
}

/** Stands in place of a page that shows what is of no asset. */
export function NotForAll({ title }: { title: string }): JSX.Element {
  return (
    <div class="page">
      <h1>{title} are shown to keys of all assets.</h1>
      <p class="why">
        This key sees some assets only. A key of <code>*/*</code> sees them.
      </p>
    </div>
  )
}
