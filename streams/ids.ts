/**
 * Identifiers and how they appear in subjects and keys.
 *
 * A run's id starts with its shard (`0-…`), so whoever holds an id knows which log and which bucket
 * to read, also after P was raised. Names are `[A-Za-z0-9_-]+`; anything freer (shard keys) is
 * encoded by `encodeToken`, never interpolated.
 */

import { InvalidError } from './errors.ts'
import { shown } from './shown.ts'
import { xxh64 } from './xxh64.ts'

declare const brand: unique symbol
type Branded<B extends string> = string & { readonly [brand]: B }

export type RunId = Branded<'RunId'>
export type AssetName = Branded<'AssetName'>
/** `<runId>.<asset>`: the two tokens as they stand in subjects and keys. */
export type BarrierId = Branded<'BarrierId'>

const NAME = /^[A-Za-z0-9_-]{1,128}$/
const RUN_ID = /^(\d{1,4})-[A-Za-z0-9-]{1,80}$/

/** xxh64 with seed 0 of the UTF-8 bytes, as 16 hex digits. */
export function hash64(text: string): string {
  return xxh64(text).toString(16).padStart(16, '0')
}

/** xxh64 with seed 0 of the UTF-8 bytes. */
export function hashBigInt(text: string): bigint {
  return xxh64(text)
}

/** xxh64 with seed 0 of bytes. */
export function hashBytes(bytes: Uint8Array): bigint {
  return xxh64(bytes)
}

/** xxh64 with seed 0 of bytes, as 16 hex digits. */
export function hashBytes64(bytes: Uint8Array): string {
  return xxh64(bytes).toString(16).padStart(16, '0')
}

/**
 * Checks a name that users choose (asset, pipeline, queue, namespace). `what` names the field in
 * the error.
 */
export function checkName(what: string, name: unknown): string {
  // `__proto__` as a property would vanish from the documents that hold things by their names.
  if (typeof name === 'string' && NAME.test(name) && name !== '__proto__') return name
  throw new InvalidError(
    `${what} must be 1 to 128 characters of A-Z a-z 0-9 _ -, got ${typeof name === 'string' ? JSON.stringify(name.slice(0, 140)) : typeof name}`,
  )
}

/** Whether an asset is what a hook, a schedule or a sensor is made of: nobody's to name. */
export function isInternalAsset(name: string): boolean {
  return /^(hook|schedule|sensor)__/.test(name)
}

export function assetName(name: string): AssetName {
  return checkName('asset name', name) as AssetName
}

/** The id of a run in shard `shard`. `unique` is made of `[A-Za-z0-9-]`. */
export function runId(shard: number, unique: string): RunId {
  return parseRunId(`${shard}-${unique}`).id
}

export function parseRunId(text: string): { id: RunId; shard: number } {
  const match = typeof text === 'string' ? RUN_ID.exec(text) : null
  if (!match?.[1]) throw new InvalidError(`${shown(text)} is no run id; one looks like 0-mgx3k2c1-9f2e…`)
  return { id: text as RunId, shard: Number(match[1]) }
}

/** Whether a text is the id of a run of this shard. */
export function isRunId(text: string, shard: number): boolean {
  return text.startsWith(`${shard}-`) && RUN_ID.test(text)
}

/** Which of `shards` shards a text falls into. */
export function shardOf(text: string, shards: number): number {
  return Number(xxh64(text) % BigInt(shards))
}

/**
 * What a run's id is made of. It is a user's key, or what started the run:
 *
 * - the message id of a trigger, or its place on the stream of triggers;
 * - the scatter that a redrive continues;
 * - the message of a subscription;
 * - what a sensor found;
 * - the run that is tried again;
 * - the execution that waits for it, `<run>.<asset>.<gate>`.
 *
 * Each has its own space, so no user's key equals any of the others.
 */
export type KeySpace = 'key' | 'message' | 'trigger' | 'redrive' | 'event' | 'sensor' | 'retry' | 'child'

/**
 * The id of a run that follows from a text. `attempt`: the second one and later are those that were
 * started because the one before had failed. `group`: the shard follows from it, in place of the
 * text.
 */
export function runIdIn(space: KeySpace, text: string, shards: number, attempt = 1, group?: string): RunId {
  const whole = `${space}:${attempt}:${text}`
  return runId(shardOf(group ?? whole, shards), `k${hash64(whole)}${hash64(`${whole}#`)}`)
}

/**
 * The run of an occurrence of a schedule, and the evaluation of a sensor or a schedule: always in
 * the first shard, which keeps their state.
 */
export function runIdOfSchedule(kind: 'schedule' | 'sensor', ...parts: readonly string[]): RunId {
  const whole = [kind, ...parts].join(':')
  return runId(0, `k${hash64(whole)}${hash64(`${whole}#`)}`)
}

/** The run that is a call of a hook: in the shard of the run that it is about. */
export function runIdOfHook(on: string, about: RunId, gate = ''): RunId {
  const whole = ['hook', on, about, gate].join(':')
  return runId(parseRunId(about).shard, `k${hash64(whole)}${hash64(`${whole}#`)}`)
}

/**
 * The id of the first run for an idempotency key: the same key leads to the same run, from any
 * process in any language.
 */
export function runIdForKey(key: string, shards: number): RunId {
  return runIdIn('key', key, shards)
}

/** Whether the id follows from a key, a message or another run: so that it may be used again. */
export function hasKey(run: string): boolean {
  return /^\d+-k[0-9a-f]{32}$/.test(run)
}

/** A fresh run id: sorts by time within a shard. `group`: the shard follows from it. */
export function newRunId(nowMs: number, random: string, shards: number, group?: string): RunId {
  const unique = `${nowMs.toString(36)}-${random}`
  return runId(shardOf(group ?? unique, shards), unique)
}

export function barrierId(run: RunId, asset: AssetName): BarrierId {
  return `${run}.${asset}` as BarrierId
}

export function parseBarrierId(text: string): { run: RunId; asset: AssetName; shard: number } {
  const dot = typeof text === 'string' ? text.indexOf('.') : -1
  if (dot < 0) throw new InvalidError(`${shown(text)} is no scatter id; one looks like <run id>.<asset>`)
  const { id, shard } = parseRunId(text.slice(0, dot))
  return { run: id, asset: assetName(text.slice(dot + 1)), shard }
}

/** A gate's id is `<run>.<asset>.<gate>`. Throws InvalidError for another text. */
export function parseGateId(text: string): { run: RunId; asset: AssetName; gate: string; shard: number } {
  const [run, asset, gate, more] = typeof text === 'string' ? text.split('.') : []
  if (run === undefined || asset === undefined || gate === undefined || more !== undefined || !NAME.test(gate))
    throw new InvalidError(`${shown(text)} is no gate's id; one looks like <run id>.<asset>.a1n1`)
  const { id, shard } = parseRunId(run)
  return { run: id, asset: assetName(asset), gate, shard }
}

/**
 * Any text as one token of a subject or key. Plain names that do not start with `_` stand for
 * themselves; all else is `_` and base64url of its UTF-8 bytes, so no two texts meet.
 */
export function encodeToken(text: string): string {
  if (NAME.test(text) && !text.startsWith('_')) return text
  return `_${Buffer.from(text, 'utf8').toString('base64url')}`
}

export function decodeToken(token: string): string {
  return token.startsWith('_') ? Buffer.from(token.slice(1), 'base64url').toString('utf8') : token
}
