/** Routes of signal gates: `<run>.<asset>.<gate>`. */
import { z } from 'zod'
import { HttpProblem } from '../../shared/problem.ts'
import { gatesFor, partFor, runFor } from '../covered.ts'
import { badCursor } from '../parse.ts'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

export const gates = s.named('Gates', z.object({ gates: z.array(s.gate), next: s.next }))
const NO_DEADLINE = '-'

export const GATES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/gates',
    tag: 'gates',
    scope: 'read',
    summary: 'Gates that wait, the soonest deadline first',
    query: s.page(1000, 100),
    answer: gates,
    handle: async (call) => {
      const { limit, cursor } = call.query
      const after = cursor === undefined ? undefined : placeOf(cursor)
      const found = await call.flow.gates.waiting(after === undefined ? { limit } : { limit, after })
      const last = found.length === limit ? found.at(-1) : undefined
      const next = last && `${last.deadline?.getTime() ?? NO_DEADLINE}~${last.id}`
      return { gates: await gatesFor(call, found), next }
    },
  }),
  route({
    method: 'GET',
    path: '/gates/:gate',
    tag: 'gates',
    scope: 'read',
    summary: 'One gate, how it was answered, and which attempts were refused',
    answer: s.gate,
    handle: async (call) => {
      await partFor(call, call.params.gate)
      const gate = await call.flow.gates.get(call.params.gate)
      if (gate) return gate
      await runFor(call, call.params.gate.slice(0, call.params.gate.indexOf('.')))
      throw new HttpProblem('unknown_id', `There is no gate ${call.params.gate}.`)
    },
  }),
]

function placeOf(cursor: string): { readonly id: string; readonly deadline: Date | undefined } {
  const at = cursor.indexOf('~')
  const deadline = cursor.slice(0, at)
  const date = deadline === NO_DEADLINE ? undefined : new Date(Number(deadline))
  if (at > 0 && !Number.isNaN(date?.getTime() ?? 0)) return { id: cursor.slice(at + 1), deadline: date }
  throw badCursor()
}
