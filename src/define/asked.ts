/** What code of a schedule or sensor says of a run: checked where the code runs. */
import { nearest } from '../../streams/did-you-mean.ts'
import { InvalidError } from '../../streams/errors.ts'
import { checkText } from '../../streams/text.ts'
import { refuseUnknown } from '../options/unknown.ts'
import type { AnyAsset } from './asset-type.ts'
import { inputsUpstream } from './input.ts'
import { parseWith } from './standard-schema.ts'

const TEXT_MAX = 512
const TAGS_MAX = 32
const TAG_MAX = 256

/** The same, without what is undefined. Throws InvalidError that names the field. */
export async function checkAsked(at: string, target: AnyAsset, asked: unknown): Promise<Record<string, unknown>> {
  if (typeof asked !== 'object' || asked === null || Array.isArray(asked))
    throw new InvalidError(`${at} must be an object such as { partition: '2026-11-23' }`)
  refuseUnknown(at, asked, ['partition', 'input', 'tags', 'key'])
  const { partition, input, tags, key } = checkAround(at, asked)
  const given = await checkInput(at, target, input ?? {})
  return Object.fromEntries(
    Object.entries({ partition, tags, key, input: given }).filter(([, value]) => value !== undefined),
  )
}

/** All of it but the input. */
export function checkAround(at: string, asked: object): Readonly<Record<string, unknown>> {
  const fields = asked as Readonly<Record<string, unknown>>
  const { partition, key, tags } = fields
  for (const [field, value] of Object.entries({ partition, key })) {
    if (value === undefined) continue
    if (typeof value !== 'string' || value.length > TEXT_MAX)
      throw new InvalidError(`${at}: ${field} must be text of at most ${TEXT_MAX} characters`)
    checkText(`${at}: ${field}`, value)
  }
  if (tags !== undefined) checkTags(`${at}: tags`, tags)
  return fields
}

function checkTags(at: string, tags: unknown): void {
  if (typeof tags !== 'object' || tags === null || Array.isArray(tags))
    throw new InvalidError(`${at} must be an object of texts, such as { tenant: 'a' }`)
  const entries = Object.entries(tags)
  if (entries.length > TAGS_MAX) throw new InvalidError(`${at}: at most ${TAGS_MAX}, got ${entries.length}`)
  for (const [name, value] of entries) {
    if (typeof value !== 'string' || name === '' || name.length > TAG_MAX || value.length > TAG_MAX)
      throw new InvalidError(`${at}.${name}: name and value must be texts of at most ${TAG_MAX} characters`)
    checkText(`${at}.${name}`, value)
  }
}

async function checkInput(at: string, target: AnyAsset, input: unknown): Promise<Record<string, unknown> | undefined> {
  const wanted = inputsUpstream(target)
  const given = checkInputNames(at, target, input)
  for (const [name, { definition }] of wanted)
    if (given.has(name) && definition.inputSchema)
      await parseWith(`${at}: input.${name}`, definition.inputSchema, given.get(name))
  return given.size === 0 ? undefined : Object.fromEntries(given)
}

/** Whether each input is there, and no other: what can be said without the schemas. */
export function checkInputNames(at: string, target: AnyAsset, input: unknown): Map<string, unknown> {
  if (typeof input !== 'object' || input === null || Array.isArray(input))
    throw new InvalidError(`${at}: input must be an object with a value for each input`)
  const wanted = inputsUpstream(target)
  const given = new Map(Object.entries(input).filter(([, value]) => value !== undefined))
  for (const name of given.keys())
    if (!wanted.has(name))
      throw new InvalidError(`${at}: input: there is no input ${name}${nearest(name, [...wanted.keys()])}`)
  for (const [name, { definition }] of wanted)
    if (!given.has(name) && !definition.spec.input?.absent)
      throw new InvalidError(`${at}: input: ${name} is missing, and ${target.name} needs it`)
  return given
}
