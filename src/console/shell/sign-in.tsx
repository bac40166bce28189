/** What stands in place of the console while nobody may see it. */
import type { JSX } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { Brand } from '../parts/glyph.tsx'
import { begin, closed, hasKey, signIn } from '../state/session.ts'

const AGAIN_MS = 3000

export function SignIn(): JSX.Element {
  const [text, setText] = useState('')
  const [isBusy, setBusy] = useState(false)
  const problem = closed.value
  if (problem && problem.status !== 401) return <NoAnswer text={problem.message} />
  return (
    <main class="sign-in">
      <form
        onSubmit={(event) => {
          event.preventDefault()
          setBusy(true)
          void signIn(text).finally(() => setBusy(false))
        }}
      >
        <div class="brand">
          <Brand />
          FlowStone
        </div>
        <h1>Who looks needs an API key.</h1>
        <label for="key">API key</label>
        <input
          id="key"
          type="password"
          autocomplete="off"
          spellcheck={false}
          required
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        {hasKey.value && problem && !isBusy ? (
          <p class="refusal" role="alert">
            This key is not accepted.
          </p>
        ) : null}
        <button type="submit" class="button primary" disabled={isBusy} aria-busy={isBusy}>
          Open
        </button>
        <p class="faint small">
          This tab keeps it until it is closed. <code>flowstone http key</code> makes one.
        </p>
      </form>
    </main>
  )
}

function NoAnswer({ text }: { text: string }): JSX.Element {
  useEffect(() => {
    const timer = setInterval(() => void begin(), AGAIN_MS)
    return () => clearInterval(timer)
  }, [])
  return (
    <main class="sign-in">
      <div>
        <div class="brand">
          <Brand />
          FlowStone
        </div>
        <h1>{text}</h1>
        <p class="faint">Trying again.</p>
      </div>
    </main>
  )
}
