/**
 * Webhooks of services that sign them, which start runs. The signature comes first. Then the run's
 * request is stored under what identifies the delivery, and only then the sender is answered.
 */
import { FlowStoneError, InvalidError, messageOf } from '../../../streams/errors.ts'
import { shown } from '../../../streams/shown.ts'
import type { RunOptions } from '../../define/run-options.ts'
import { refuseUnknown } from '../../options/unknown.ts'
import { targetOf } from '../../runs/owner.ts'
import { onlyInput } from '../../runs/run-request.ts'
import type { Logger } from '../../telemetry.ts'
import { type BodyKind, parseBody } from '../shared/body.ts'
import { HttpProblem, json } from '../shared/problem.ts'
import {
  type CheckedSigner,
  checkSignature,
  checkSigner,
  deliveryId,
  type SignedSender,
  slackChallenge,
} from '../shared/signed.ts'
import { type RunsOverHttp, reasonIn, startProblem } from './over-http.ts'

/** What a service sent, as the functions of a webhook get it. Its signature was checked. */
export interface WebhookMessage {
  /** What identifies the delivery: its own id if that is signed, else a hash of the body. */
  readonly id: string
  readonly headers: Headers
  /** The body: of JSON its value, of a form its fields. Only the input's schema checks `T`. */
  json<T = ReturnType<typeof JSON.parse>>(): T
}

/** A service whose signed webhooks start runs. */
export interface Webhook {
  /** How it signs, and with what. */
  readonly sender: SignedSender
  /** The asset that a run makes: `'orders/invoice'`. */
  readonly run: string
  /** What the run is given, by input. Default: the asset's only input is the body. */
  readonly input?: (message: WebhookMessage) => Readonly<Record<string, unknown>>
  /** Two messages with the same key start one run. Default: the message's `id`. */
  readonly key?: (message: WebhookMessage) => string | undefined
  /** The data partition of the run. */
  readonly partition?: (message: WebhookMessage) => string | undefined
  /** To find the run by. */
  readonly tags?: (message: WebhookMessage) => Readonly<Record<string, string>> | undefined
  /** Only messages for which it is true start a run. Others are answered `ignored`. */
  readonly filter?: (message: WebhookMessage) => boolean
}

export interface CheckedWebhook extends Omit<Webhook, 'sender'> {
  readonly path: string
  readonly signer: CheckedSigner
}

interface Received {
  readonly kind: BodyKind
  readonly bytes: Uint8Array
  readonly headers: Headers
}

const FUNCTIONS = ['input', 'key', 'partition', 'tags', 'filter'] as const
const OPTIONS = [
  'sender',
  'run',
  'input',
  'key',
  'partition',
  'tags',
  'filter',
] as const satisfies readonly (keyof Webhook)[]
const SENDER_OPTIONS = ['scheme', 'secret', 'tolerance'] as const satisfies readonly (keyof SignedSender)[]
const PATH_MAX = 200
const KEY_MAX = 255
/** A sender tries again later: a worker of the pipeline may have come by then. */
const RETRY_AFTER_S = '60'

/** Throws InvalidError that names the webhook and the option. */
export function checkWebhooks(webhooks: Readonly<Record<string, Webhook>>): ReadonlyMap<string, CheckedWebhook> {
  if (typeof webhooks !== 'object' || webhooks === null || Array.isArray(webhooks))
    throw new InvalidError(`webhooks must be an object of webhooks by path, got ${shown(webhooks)}`)
  return new Map(
    Object.entries(webhooks).map(([path, webhook]) => {
      const at = `webhooks[${JSON.stringify(path)}]`
      checkPath(path)
      refuseUnknown(at, webhook, OPTIONS)
      const { sender, ...rest } = webhook
      refuseUnknown(`${at}: sender`, sender, SENDER_OPTIONS)
      targetOf(`${at}: run`, rest.run)
      for (const name of FUNCTIONS)
        if (rest[name] !== undefined && typeof rest[name] !== 'function')
          throw new InvalidError(`${at}: ${name} must be a function, got ${typeof rest[name]}`)
      return [path, { ...rest, path, signer: checkSigner(`${at}: sender`, sender) }]
    }),
  )
}

/** Paths of our own would be hidden, or hide these. */
function checkPath(path: string): void {
  const isPath = path.length <= PATH_MAX && /^(\/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$/.test(path)
  if (!isPath || /^\/(healthz|readyz|runs|hooks\/flowstone)(\/|$)/.test(path))
    throw new InvalidError(
      `webhooks: ${JSON.stringify(path)} must be a path such as /hooks/orders, and none of /runs, /hooks/flowstone, /healthz and /readyz`,
    )
}

/** Answers a webhook: 200 when its run is on the log, or was before. */
export async function startByWebhook(
  flow: Pick<RunsOverHttp, 'request'>,
  webhook: CheckedWebhook,
  { kind, bytes, headers }: Received,
  logger: Logger,
): Promise<Response> {
  const { signer, path } = webhook
  await checkSignature(signer, headers, bytes)
  const { value } = await parseBody(kind, bytes, headers.get('content-type') ?? '')
  const challenge = slackChallenge(signer, value)
  if (challenge !== undefined) return json({ challenge })
  const id = deliveryId(signer, value, headers, bytes)
  // What was sent is JSON, or what a form is made into.
  const message: WebhookMessage = { id, headers, json: <T>() => value as T }
  if (!asked(webhook, 'filter', (call) => call(message), true)) return json({ status: 'ignored' })
  const options = optionsOf(webhook, message, value)
  try {
    const run = await flow.request(webhook.run, options)
    logger.info(`http: webhook ${path} ${run.isNew ? 'started' : 'repeats'} run ${run.id} of ${webhook.run}`)
    return json({ status: 'accepted', run: run.id, repeated: !run.isNew })
  } catch (error) {
    throw problemIn(webhook, id, error, logger)
  }
}

function optionsOf(webhook: CheckedWebhook, message: WebhookMessage, value: unknown): RunOptions {
  const key = asked(webhook, 'key', (call) => call(message), undefined) ?? message.id
  if (typeof key !== 'string' || key === '' || key.length > KEY_MAX)
    throw faulty(webhook, 'key', `brought no text of 1 to ${KEY_MAX} characters`)
  const partition = asked(webhook, 'partition', (call) => call(message), undefined)
  const tags = asked(webhook, 'tags', (call) => call(message), undefined)
  return {
    key: `webhook:${webhook.path}:${key}`,
    input: asked(webhook, 'input', (call) => call(message), onlyInput(value)),
    ...(partition === undefined ? {} : { partition }),
    ...(tags === undefined ? {} : { tags }),
  }
}

/** Senders show what they were answered to nobody, or much later. So the log has it, too. */
function problemIn({ path, run }: CheckedWebhook, id: string, error: unknown, logger: Logger): unknown {
  const problem = startProblem(error)
  if (!(problem instanceof HttpProblem) || problem.reason === 'unavailable') return problem
  const why = error instanceof Error ? reasonIn(error) : problem.detail
  logger.warn(`http: webhook ${path}: delivery ${id} cannot start ${run}: ${why}`)
  if (problem.reason !== 'unknown_asset') return problem
  return new HttpProblem('unavailable', 'No worker has registered this yet.', { 'Retry-After': RETRY_AFTER_S })
}

/**
 * What the user's function brings. When it throws, that is this side's fault, and the sender may
 * try again.
 */
function asked<N extends (typeof FUNCTIONS)[number], T>(
  webhook: CheckedWebhook,
  name: N,
  call: (given: NonNullable<CheckedWebhook[N]>) => T,
  otherwise: T,
): T {
  const given = webhook[name]
  if (given === undefined) return otherwise
  try {
    return call(given)
  } catch (error) {
    throw faulty(webhook, name, messageOf(error))
  }
}

function faulty({ path }: CheckedWebhook, name: string, what: string): FlowStoneError {
  return new FlowStoneError('user_code', `webhooks[${JSON.stringify(path)}]: ${name} failed: ${what}`)
}
