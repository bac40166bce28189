/** Which subscriptions a caller may see. */
import { HttpProblem } from '../shared/problem.ts'
import type { Call } from './route.ts'

/** Its name, `<pipeline>/<subscription>`. Throws the problem `unknown_id`. */
export async function mustSubscribe(
  { flow, caller }: Pick<Call, 'flow' | 'caller'>,
  { pipeline, subscription }: { readonly pipeline: string; readonly subscription: string },
): Promise<string> {
  const name = `${pipeline}/${subscription}`
  const found = (await flow.events.list({ removed: true })).find((one) => one.name === name)
  // Of a removed one nobody knows any more what it made.
  const isSeen = found && (found.target === '' ? caller.seesAll : caller.covers(pipeline, found.target))
  if (!isSeen) throw new HttpProblem('unknown_id', `There is no subscription ${name}.`)
  return name
}
