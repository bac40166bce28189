/** A signal as it is stored, and the checks of its options. */
import { createHash } from 'node:crypto'
import { InvalidError } from '../../streams/errors.ts'
import type { GateResolved } from '../../streams/gate-schemas.ts'
import { checkText, cut } from '../../streams/text.ts'
import type { OptionNames } from '../options/unknown.ts'
import type { GateDeps } from './deps.ts'
import type { SignalOptions } from './types.ts'

export const SIGNAL_OPTIONS: OptionNames<SignalOptions> = { source: true, headers: true, idempotencyKey: true }
export const SOURCE_MAX = 256
const HEADERS_MAX_BYTES = 4096
const KEY_MAX = 1024

export type Signal = Pick<GateResolved, 'payload' | 'source' | 'headers' | 'idempotency' | 'by'>

export async function signalOf(
  { io, by }: Pick<GateDeps, 'io' | 'by'>,
  payload: unknown,
  options: SignalOptions,
  at: { readonly run: string; readonly asset: string },
): Promise<Signal> {
  const { source, headers, idempotencyKey } = options
  if (source !== undefined && (typeof source !== 'string' || source.length > SOURCE_MAX))
    throw new InvalidError(`source must be text of at most ${SOURCE_MAX} characters`)
  if (source !== undefined) checkText('source', source)
  if (headers instanceof Headers)
    throw new InvalidError('headers must be a plain object: Object.fromEntries(request.headers)')
  const kept = Object.fromEntries(Object.entries(headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]))
  if (
    Object.values(kept).some((value: unknown) => typeof value !== 'string') ||
    JSON.stringify(kept).length > HEADERS_MAX_BYTES
  )
    throw new InvalidError(`headers must be text by name, and take at most ${HEADERS_MAX_BYTES} bytes`)
  for (const [name, value] of Object.entries(kept)) checkText(`headers: ${cut(name, 100)}`, name + value)
  checkKey(idempotencyKey)
  const context = { run: at.run, pipeline: '', asset: at.asset, partition: undefined }
  return {
    payload: await io.store('nats', payload ?? null, context),
    ...(source === undefined ? {} : { source }),
    ...(headers === undefined ? {} : { headers: kept }),
    ...(idempotencyKey === undefined ? {} : { idempotency: hashOfKey(idempotencyKey) }),
    ...(by === undefined ? {} : { by }),
  }
}

export function checkKey(key: unknown): void {
  if (key !== undefined && (typeof key !== 'string' || key === '' || key.length > KEY_MAX))
    throw new InvalidError(`idempotencyKey must be text of 1 to ${KEY_MAX} characters`)
  if (typeof key === 'string') checkText('idempotencyKey', key)
}

export function hashOfKey(idempotencyKey: string): string {
  return createHash('sha256').update(idempotencyKey).digest('hex')
}
