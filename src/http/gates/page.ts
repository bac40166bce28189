/**
 * The page of a gate, for people: what waits, and a way to answer. No script, nothing loaded; the
 * form goes to the page's own address, so the token stands nowhere in it.
 */

import { html, raw } from 'hono/html'
import { cut } from '../../../streams/text.ts'
import type { GateView } from '../../gates/types.ts'
import { GUARD_HEADERS, type HttpProblem } from '../shared/problem.ts'
import { NONCE_FIELD } from './form.ts'
import { metadataTable, text } from './metadata.ts'
import { PAGE_CSP, STYLE } from './style.ts'

type Markup = ReturnType<typeof html>

export const COMMENT_MAX = 2000
export const NAME_MAX = 200

/** What a person has put in, to be shown again when it could not be taken. */
export interface Draft {
  readonly payload?: string
  readonly comment?: string
  readonly by?: string
}

export interface Asked {
  readonly nonce: string
  readonly problem?: HttpProblem
  readonly draft?: Draft
}

/** A gate that waits: with the form. */
export function waitingPage(gate: GateView, asked: Asked): Promise<Response> {
  const { problem } = asked
  const title = headline(gate)
  return page(
    problem?.status ?? 200,
    title,
    html`${problem ? problemSheet(problem) : ''}
<section class="sheet"><h1><bdi>${text(title)}</bdi></h1>${facts(gate)}</section>
${metadataSheet(gate)}
<section class="sheet">${gate.kind === 'approval' ? approvalForm(asked) : signalForm(asked)}</section>`,
    problem?.headers,
  )
}

/**
 * A gate that has its end: what was recorded. `seen`: to whoever answered, who came too late with
 * an answer, or only looks.
 */
export function endedPage(gate: GateView, seen: 'mine' | 'late' | 'looked', status = 200): Promise<Response> {
  const { heading, words, look } = ending(gate, seen)
  return page(
    status,
    heading,
    html`<section class="sheet done ${look}" role="status"><h1>${heading}</h1><p>${words}</p>${answerFacts(gate)}</section>
<section class="sheet"><h2>What was asked</h2><p><bdi class="text">${text(headline(gate))}</bdi></p>${facts(gate)}</section>
${metadataSheet(gate)}`,
  )
}

/** There is no gate to show. */
export function problemPage(problem: HttpProblem): Promise<Response> {
  return page(problem.status, problem.title, problemSheet(problem, true), problem.headers)
}

async function page(
  status: number,
  title: string,
  content: Markup,
  headers: Readonly<Record<string, string>> = {},
): Promise<Response> {
  // A template is a promise only where something in it is one, and nothing here is.
  const body = await html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex,nofollow"><title>${text(title).slice(0, 120)}</title><style>${raw(STYLE)}</style></head>
<body><main>${content}</main></body></html>
`
  return new Response(String(body), {
    status,
    headers: {
      ...GUARD_HEADERS,
      'Content-Security-Policy': PAGE_CSP,
      ...headers,
      'Content-Type': 'text/html; charset=utf-8',
    },
  })
}

function problemSheet(problem: HttpProblem, alone = false): Markup {
  const heading = alone ? html`<h1>${problem.title}</h1>` : html`<h2>${problem.title}</h2>`
  return html`<section class="sheet wrong" role="alert" id="problem">${heading}<p>${problem.detail}</p></section>`
}

function approvalForm(asked: Asked): Markup {
  const { draft = {} } = asked
  return html`<form method="post">${hidden(asked)}
<label for="comment">Comment <span>(optional)</span></label><textarea id="comment" name="comment" maxlength="${COMMENT_MAX}">${draft.comment ?? ''}</textarea>
<label for="by">Your name <span>(optional, recorded with the decision)</span></label><input id="by" name="by" autocomplete="name" maxlength="${NAME_MAX}" value="${draft.by ?? ''}">
<div class="row"><button class="yes" name="decision" value="approve">Approve</button><button class="no" name="decision" value="reject">Reject</button></div></form>`
}

function signalForm(asked: Asked): Markup {
  const { draft = {}, problem } = asked
  const fault = problem
    ? raw(' aria-invalid="true" aria-describedby="problem payload-hint"')
    : raw(' aria-describedby="payload-hint"')
  return html`<form method="post">${hidden(asked)}
<label for="payload">Payload <span>(JSON, optional)</span></label><textarea class="code" id="payload" name="payload" spellcheck="false" autocapitalize="off"${fault}>${draft.payload ?? ''}</textarea>
<p class="hint" id="payload-hint">What the asset gets, such as {"ok": true}. Left empty, it gets null.</p>
<div class="row"><button name="decision" value="send">Send</button></div></form>`
}

/** The disabled button is the form's first, so Enter in a field does not press one that decides. */
function hidden({ nonce }: Asked): Markup {
  return html`<button disabled aria-hidden="true"></button><input type="hidden" name="${NONCE_FIELD}" value="${nonce}">`
}

function headline(gate: GateView): string {
  const message = gate.kind === 'approval' ? entry(gate.metadata, 'message') : undefined
  if (typeof message === 'string' && message !== '') return cut(message, 500)
  return gate.kind === 'approval' ? `Approval for ${gate.asset}` : `${gate.asset} waits for a signal`
}

function facts(gate: GateView): Markup {
  const { asset, run, index, openedAt, deadline, timeouts, retriesLeft, status } = gate
  const waiting = status === 'waiting'
  return html`<dl class="facts"><dt>Asset</dt><dd>${asset}${index === undefined ? '' : `, instance ${index}`}</dd><dt>Run</dt><dd>${run}</dd>
<dt>${waiting ? 'Waiting since' : 'Asked at'}</dt><dd>${time(openedAt)}</dd>${
    waiting
      ? html`<dt>Answer until</dt><dd>${deadline ? time(deadline) : 'no deadline'}${timeouts > 0 ? `, reminder ${timeouts}` : ''}${retriesLeft > 0 && deadline ? ', then it is asked again' : ''}</dd>`
      : ''
  }</dl>`
}

function metadataSheet(gate: GateView): Markup | '' {
  const shown = gate.kind === 'approval' ? withoutMessage(gate.metadata) : gate.metadata
  if (shown === undefined || shown === null) return ''
  return html`<section class="sheet"><h2>What ${gate.asset} says about it</h2>${metadataTable(shown)}</section>`
}

/** An approval's metadata is its message, which is the headline, and its context. */
function withoutMessage(metadata: unknown): unknown {
  if (typeof metadata !== 'object' || metadata === null || Array.isArray(metadata)) return metadata
  const { message: _, ...rest }: Record<string, unknown> = { ...metadata }
  const names = Object.keys(rest)
  if (names.length === 0) return undefined
  return names.length === 1 && names[0] === 'context' ? rest.context : rest
}

function ending(
  gate: GateView,
  seen: 'mine' | 'late' | 'looked',
): { heading: string; words: Markup | string; look: string } {
  const at = gate.endedAt ? html` at ${time(gate.endedAt)}` : ''
  if (gate.status === 'timed_out')
    return { heading: 'Too late', words: html`Nobody answered in time; it ended${at}.`, look: 'no-done' }
  if (gate.status === 'cancelled')
    return {
      heading: 'No longer wanted',
      words: html`It was cancelled${at}${gate.reason ? html`: <bdi>${text(gate.reason)}</bdi>` : ''}.`,
      look: 'no-done',
    }
  const decision = gate.kind === 'approval' ? entry(gate.signal?.payload, 'approved') : undefined
  const verdict = decision === true ? 'Approved' : decision === false ? 'Rejected' : 'Received'
  const look = decision === true ? 'yes-done' : decision === false ? 'no-done' : ''
  if (seen === 'mine')
    return {
      heading: `${verdict}: recorded`,
      words: html`Your answer was recorded${at}. This page can be closed.`,
      look,
    }
  const heading = decision === undefined ? 'Already answered' : `Already ${decision === true ? 'approved' : 'rejected'}`
  return {
    heading,
    words: html`${seen === 'late' ? 'Somebody was first' : 'It was answered'}${at}. One answer counts, and it stands.`,
    look,
  }
}

function answerFacts(gate: GateView): Markup | '' {
  const { signal, kind } = gate
  if (!signal) return ''
  const by = entry(signal.payload, 'by')
  const comment = entry(signal.payload, 'comment')
  const rows = [
    ...(kind === 'approval' && typeof by === 'string' && by !== '' ? [['By', by]] : []),
    ...(signal.source === undefined ? [] : [['From', signal.source]]),
    ...(kind === 'approval' && typeof comment === 'string' && comment !== '' ? [['Comment', comment]] : []),
  ]
  if (rows.length === 0) return ''
  return html`<dl class="facts">${rows.map(([name, value]) => html`<dt>${name}</dt><dd><bdi class="text">${text(cut(String(value), COMMENT_MAX))}</bdi></dd>`)}</dl>`
}

function entry(of: unknown, name: string): unknown {
  return typeof of === 'object' && of !== null && Object.hasOwn(of, name) ? Reflect.get(of, name) : undefined
}

/** In UTC, said so: the server does not know where its reader is. */
function time(at: Date): Markup {
  const iso = at.toISOString()
  return html`<time datetime="${iso}">${`${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC`}</time>`
}
