/** What a run was given, and its facts in order. */
import type { JSX } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import type { Fact, RunHistory } from '../api/types.ts'
import { clock, utc } from '../format.ts'
import { Loaded } from '../parts/notice.tsx'
import { at, setAt } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { client } from '../state/session.ts'

const PAGE = 100

export function RunInputView({ id }: { id: string }): JSX.Element {
  const reading = useRead(reads.runInput(id))
  return (
    <div class="pad stack">
      <Loaded reading={reading}>
        {({ input }) =>
          Object.keys(input).length === 0 ? (
            <p class="faint">It was given nothing.</p>
          ) : (
            Object.entries(input).map(([name, value]) => (
              <div>
                <h3>
                  <code>{name}</code>
                </h3>
                <pre>{JSON.stringify(value, undefined, 2)}</pre>
              </div>
            ))
          )
        }
      </Loaded>
    </div>
  )
}

export function RunHistoryList({ id, isOpen }: { id: string; isOpen: boolean }): JSX.Element {
  const reading = useRead(reads.runHistory(id, { limit: PAGE }), isOpen ? { on: { run: [id] } } : {})
  const [more, setMore] = useState<readonly Fact[]>([])
  const [next, setNext] = useState<string | undefined>(undefined)
  const first = reading.data
  useEffect(() => {
    setMore([])
    setNext(first?.next)
  }, [first?.next, at.value?.getTime()])
  const read = async (): Promise<void> => {
    const when = at.value ? { at: at.value } : {}
    const page = await client.get<RunHistory>(reads.runHistory(id, { limit: PAGE, cursor: next }), when)
    setMore([...more, ...page.facts])
    setNext(page.next)
  }
  return (
    <div class="pad">
      <Loaded reading={reading}>
        {({ facts }) => (
          <ul class="fact-list">
            {[...facts, ...more].map((fact) => (
              <li>
                <button
                  type="button"
                  class="chain-time"
                  title={`${utc(fact.at)}: show this moment`}
                  onClick={() => setAt(new Date(fact.at))}
                >
                  {clock(fact.at)}
                </button>
                <code class={fact.kind.includes('fail') ? 'tone-fail' : ''}>{fact.kind}</code>
                <code class="faint cut">{fact.ids.asset ?? fact.ids.gate ?? ''}</code>
              </li>
            ))}
          </ul>
        )}
      </Loaded>
      {next === undefined ? null : (
        <button type="button" class="button small" onClick={() => void read().catch(() => {})}>
          More facts
        </button>
      )}
    </div>
  )
}
