/**
 * Handles an answer that a person gave on the page: checks it, makes a payload of it, signals it,
 * and shows the person the result.
 */
import { createHash } from 'node:crypto'
import { SignalRejectedError } from '../../../streams/errors.ts'
import type { GateView } from '../../gates/types.ts'
import { type FormFields, parseJson } from '../shared/body.ts'
import { problemOf } from '../shared/fault.ts'
import { HttpProblem } from '../shared/problem.ts'
import type { RequestContext, Sender } from '../shared/request-context.ts'
import { checkNonce, NONCE_FIELD } from './form.ts'
import { COMMENT_MAX, type Draft, endedPage, NAME_MAX, problemPage, waitingPage } from './page.ts'

interface Answer {
  readonly token: string
  readonly fields: FormFields
  readonly sender: Sender
}

/** Always a page. Its status is the one that a program would have got. */
export async function answer({ gates }: RequestContext, { token, fields, sender }: Answer): Promise<Response> {
  const field = (name: string): string => fields.find(([known]) => known === name)?.[1] ?? ''
  const draft: Draft = { payload: field('payload'), comment: field('comment'), by: field('by') }
  const nonce = field(NONCE_FIELD)
  let gate: GateView | undefined
  try {
    checkNonce(token, nonce, Date.now())
    gate = await gates.getByToken(token)
    if (!gate) throw new HttpProblem('not_found')
    const payload = payloadOf(gate, field('decision'), draft)
    // Sent twice (a double click, a reload) it is one answer; the same form with another decision
    // is another.
    const idempotencyKey = `form:${createHash('sha256')
      .update(`${nonce}\0${field('decision')}\0${JSON.stringify(draft)}`)
      .digest('base64url')}`
    await gates.signal(token, payload, { ...sender, idempotencyKey })
    return await ended(gates, token, 'mine')
  } catch (error) {
    if (error instanceof SignalRejectedError && ENDED.has(error.reason))
      return await ended(gates, token, 'late', problemOf(error).status)
    const problem = problemOf(error)
    // The same nonce: should the answer have been stored after all, giving it once more finds it to
    // be the same.
    return gate?.status === 'waiting' ? await waitingPage(gate, { nonce, problem, draft }) : await problemPage(problem)
  }
}

const ENDED: ReadonlySet<string> = new Set(['already_signaled', 'expired', 'cancelled'])

/** Read again: what stands there is what counts. */
async function ended(
  gates: RequestContext['gates'],
  token: string,
  seen: 'mine' | 'late',
  status = 200,
): Promise<Response> {
  const gate = await gates.getByToken(token)
  if (!gate) return await problemPage(new HttpProblem('not_found'))
  return await endedPage(gate, seen, status)
}

function payloadOf(gate: GateView, decision: string, draft: Draft): unknown {
  if (gate.kind === 'approval') {
    if (decision !== 'approve' && decision !== 'reject')
      throw new HttpProblem('malformed_body', 'Choose: approve, or reject.')
    const comment = (draft.comment ?? '').trim()
    const by = (draft.by ?? '').trim()
    if (comment.length > COMMENT_MAX || by.length > NAME_MAX)
      throw new HttpProblem(
        'malformed_body',
        `A comment has at most ${COMMENT_MAX} characters, and a name at most ${NAME_MAX}.`,
      )
    return {
      approved: decision === 'approve',
      ...(comment === '' ? {} : { comment }),
      ...(by === '' ? {} : { by }),
    }
  }
  const text = (draft.payload ?? '').trim()
  return text === '' ? null : parseJson(text, 'payload')
}
