/** The answer that a page opens with: a sentence of parts, made by pure code. */
import type { JSX } from 'preact'
import type { Said } from '../answers.ts'

export function Answer({ parts }: { parts: readonly Said[] }): JSX.Element {
  return (
    <h1>
      <Sentence parts={parts} />
    </h1>
  )
}

/** Parts stand beside each other as they are: spaces are theirs. */
export function Sentence({ parts }: { parts: readonly Said[] }): JSX.Element {
  return (
    <>
      {parts.map(({ text, tone, href, mono }) => {
        const inner = mono ? <code>{text}</code> : text
        const names = tone ? `tone-${tone}` : undefined
        if (href)
          return (
            <a {...(names ? { class: names } : {})} href={href}>
              {inner}
            </a>
          )
        return names ? <span class={names}>{inner}</span> : inner
      })}
    </>
  )
}
