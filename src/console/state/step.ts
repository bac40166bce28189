/** One fact back or on. */
import * as reads from '../api/reads.ts'
import type { Log } from '../api/types.ts'
import { present } from './clock.ts'
import { at, setAt } from './place.ts'
import { client, seesAll } from './session.ts'

const MOST = 500
const FIRST_MS = 10_000

export async function stepFact(by: 1 | -1): Promise<void> {
  if (!seesAll.value) return
  const from = at.value?.getTime()
  if (by === 1 && from === undefined) return
  const next = by === -1 ? await before(from ?? present.value) : await after(from ?? present.value)
  if (next !== undefined || by === 1) setAt(next === undefined ? undefined : new Date(next))
}

async function before(time: number): Promise<number | undefined> {
  const { facts } = await client.get<Log>(reads.log({ until: new Date(time - 1).toISOString(), limit: 1 }))
  return facts[0] && new Date(facts[0].at).getTime()
}

/** The log is read newest first, so more and more of it until something is found. */
async function after(time: number): Promise<number | undefined> {
  for (let span = FIRST_MS; time + span / 4 < present.value; span *= 4) {
    const query = { since: new Date(time + 1).toISOString(), until: new Date(time + span).toISOString(), limit: MOST }
    const { facts } = await client.get<Log>(reads.log(query))
    const last = facts.at(-1)
    if (last) return new Date(last.at).getTime()
  }
  return undefined
}
