/** An error with what caused it. All of it is text of users. */
import type { JSX } from 'preact'
import type { ErrorShown } from '../api/types.ts'
import { chainOf } from '../runs.ts'

export function ErrorChain({ error }: { error: ErrorShown }): JSX.Element {
  return (
    <pre class="error-chain">
      {chainOf(error).map(({ code, message }, i) => (
        <div>
          {i === 0 ? '' : 'caused by '}
          {code === 'error' ? null : <b>{code}: </b>}
          {message}
        </div>
      ))}
    </pre>
  )
}
