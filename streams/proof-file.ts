/**
 * The blocks of a proof in a file: a line of JSON that says what it is, then one for each block.
 *
 *   proof       the head: format, namespace, shards
 *   block       a block as it stands on its stream: shard, head, and detail where it has one
 */
import { z } from 'zod'
import { FlowStoneError, InvalidError, messageOf } from './errors.ts'

export const PROOF_FILE_VERSION = 1

const fileHead = z.object({
  kind: z.literal('proof'),
  v: z.literal(PROOF_FILE_VERSION),
  namespace: z.string(),
  shards: z.number().int().min(1),
})

const blockLine = z.object({
  kind: z.literal('block'),
  shard: z.number().int().min(0),
  head: z.base64(),
  detail: z.base64().exactOptional(),
})

export interface ProofFileHead {
  readonly namespace: string
  readonly shards: number
}

/** A block, with its bytes as they stand on the stream. */
export interface FiledBlock {
  readonly shard: number
  readonly head: Uint8Array
  readonly detail?: Uint8Array
}

export function proofHeadLine({ namespace, shards }: ProofFileHead): string {
  return `${JSON.stringify({ kind: 'proof', v: PROOF_FILE_VERSION, namespace, shards })}\n`
}

export function proofBlockLine({ shard, head, detail }: FiledBlock): string {
  const line = { kind: 'block', shard, head: base64(head), ...(detail ? { detail: base64(detail) } : {}) }
  return `${JSON.stringify(line)}\n`
}

/** `file`: its name, for errors. Throws FlowStoneError `invalid`, `newer_version`. */
export function proofHeadIn(file: string, line: string): ProofFileHead {
  const found = jsonIn(file, line)
  const { v } = z.object({ v: z.number() }).safeParse(found).data ?? {}
  if (v !== undefined && v > PROOF_FILE_VERSION)
    throw new FlowStoneError(
      'newer_version',
      `${file} has version ${v}, this process knows ${PROOF_FILE_VERSION}; upgrade it`,
    )
  const { data } = fileHead.safeParse(found)
  if (!data) throw new InvalidError(`${file} is not what flowstone proof export wrote`)
  return { namespace: data.namespace, shards: data.shards }
}

/** `file`: its name, for errors. Throws FlowStoneError `invalid`. */
export function proofBlockIn(file: string, line: string): FiledBlock {
  const { data, error } = blockLine.safeParse(jsonIn(file, line))
  if (!data) {
    const [issue] = error.issues
    throw new InvalidError(`${file} has a line that is no block: ${issue?.path.join('.') || 'it'}: ${issue?.message}`)
  }
  const { shard, head, detail } = data
  return { shard, head: bytes(head), ...(detail === undefined ? {} : { detail: bytes(detail) }) }
}

function jsonIn(file: string, line: string): unknown {
  try {
    return JSON.parse(line)
  } catch (cause) {
    throw new InvalidError(`${file} has a line that is no JSON: ${messageOf(cause)}`, { cause })
  }
}

function base64(from: Uint8Array): string {
  return Buffer.from(from.buffer, from.byteOffset, from.length).toString('base64')
}

function bytes(from: string): Uint8Array {
  return new Uint8Array(Buffer.from(from, 'base64'))
}
