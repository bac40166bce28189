/** Facts as the API shows them: data that is too long is cut. */
import { jsonOf } from '../../../streams/plain-json.ts'
import { cut } from '../../../streams/text.ts'
import type { FactView } from '../../client/inspect/facts.ts'

const SHOWN_BYTES = 8192

export function factShown({ data, ...fact }: FactView) {
  const text = jsonOf(data)
  return text.length <= SHOWN_BYTES ? { ...fact, data } : { ...fact, preview: cut(text, SHOWN_BYTES) }
}
