/** What is answered about a run: that it was accepted, or what it looks like. */
import { FlowStoneError, messageOf, RunFailedError } from '../../../streams/errors.ts'
import { jsonOf } from '../../../streams/plain-json.ts'
import type { RunView } from '../../client/run-view.ts'
import { HttpProblem, json, jsonText } from '../shared/problem.ts'
import type { RunOverHttp } from './over-http.ts'

/** How a run ended. */
export type RunEnd =
  | { readonly status: 'succeeded'; readonly value: unknown }
  | {
      readonly status: 'failed' | 'cancelled'
      readonly error: { readonly code: string; readonly message: string; readonly asset?: string }
    }

/** The end of a run, when it comes. Rejects when `signal` is aborted. */
export async function endOf(run: RunOverHttp, signal: AbortSignal): Promise<RunEnd> {
  try {
    return { status: 'succeeded', value: await run.result({ signal }) }
  } catch (error) {
    if (!(error instanceof RunFailedError)) throw error
    const { code, status, asset } = error
    return { status, error: { code, message: messageOf(error), ...(asset === undefined ? {} : { asset }) } }
  }
}

/** 202: it was stored, and goes on by itself. */
export function startedAnswer(run: RunOverHttp, status: string, url: string): Response {
  return json({ run: run.id, status, url, repeated: !run.isNew }, 202, { Location: url })
}

/** 200: the run as it is, with its value or error when it has ended. */
export function runAnswer(
  view: RunView,
  end: RunEnd | undefined,
  url: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  const { id, pipeline, target, partition, tags, retryOf, requestedAt, finishedAt } = view
  const shown = {
    run: id,
    status: end?.status ?? view.status,
    url,
    asset: `${pipeline}/${target}`,
    partition,
    tags,
    retryOf,
    requestedAt,
    finishedAt,
    ...(end?.status === 'succeeded' ? { value: end.value ?? null } : end ? { error: end.error } : {}),
  }
  // Values of all kinds: what JSON has no word for is said as the command line says it.
  return jsonText(jsonOf(shown), 200, { 'Content-Location': url, ...headers })
}

/** As it is known now. Throws `unknown_run`, also for what is no run's id. */
export async function viewOf(run: RunOverHttp): Promise<RunView> {
  const view = await run.view().catch((error: unknown) => {
    if (error instanceof FlowStoneError && error.code === 'not_found') return undefined
    throw error
  })
  if (!view) throw new HttpProblem('unknown_run')
  return view
}
