/** Starts a run: of which asset, and with what. */
import type { JSX } from 'preact'
import { useRef, useState } from 'preact/hooks'
import * as reads from '../api/reads.ts'
import { Act } from '../parts/act.tsx'
import { Dialog } from '../parts/dialog.tsx'
import { go } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { client } from '../state/session.ts'

export function StartRun({ onClose, target: given = '' }: { onClose: () => void; target?: string }): JSX.Element {
  const assets = useRead(reads.assets()).data?.assets ?? []
  const [target, setTarget] = useState(given)
  const [partition, setPartition] = useState('')
  const [input, setInput] = useState('')
  const press = useRef<() => void>(undefined)
  const start = async (key: string): Promise<void> => {
    const body = {
      target: target.trim(),
      ...(partition === '' ? {} : { partition }),
      ...(input.trim() === '' ? {} : { input: JSON.parse(input) }),
    }
    const { run } = await client.post<{ run: string }>('/runs', body, { key })
    onClose()
    go(['runs', run])
  }
  return (
    <Dialog label="Start a run" onClose={onClose}>
      <form
        class="start-run"
        onSubmit={(event) => {
          event.preventDefault()
          press.current?.()
        }}
      >
        <h2>Start a run</h2>
        <label for="start-target">Asset</label>
        <input
          id="start-target"
          type="text"
          list="start-assets"
          placeholder="pipeline/asset"
          autocomplete="off"
          value={target}
          onInput={(event) => setTarget(event.currentTarget.value)}
        />
        <datalist id="start-assets">
          {assets
            .filter(({ kind }) => kind !== 'input')
            .map(({ pipeline, name }) => (
              <option value={`${pipeline}/${name}`} />
            ))}
        </datalist>
        <label for="start-partition">Partition, if it has any</label>
        <input
          id="start-partition"
          type="text"
          autocomplete="off"
          value={partition}
          onInput={(event) => setPartition(event.currentTarget.value)}
        />
        <label for="start-input">Input as JSON, by the name of the input</label>
        <textarea
          id="start-input"
          class="mono"
          spellcheck={false}
          placeholder='{ "order": { "id": "o-1" } }'
          value={input}
          onInput={(event) => setInput(event.currentTarget.value)}
        />
        <div class="line">
          <Act scope="start" kind="primary" act={start} press={press} isOff={target.trim() === ''}>
            Start
          </Act>
          <button type="button" class="button" onClick={onClose}>
            Go back
          </button>
        </div>
      </form>
    </Dialog>
  )
}
