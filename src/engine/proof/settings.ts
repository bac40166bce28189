/** Whether an engine proves its log, and with which key. */
import { readFileSync } from 'node:fs'
import { InvalidError, messageOf } from '../../../streams/errors.ts'
import { type ProofKey, parseProofKey } from '../../../streams/proof-keys.ts'
import { refuseUnknown } from '../../options/unknown.ts'

/** Options of `flow.engine({ proof })`. */
export interface ProofOptions {
  /**
   * The private key that signs the blocks: Ed25519, in PEM. Default: the environment's
   * FLOWSTONE_PROOF_KEY (PEM), or the file that FLOWSTONE_PROOF_KEY_FILE names; without either,
   * blocks are not signed. To change it, start the engines with another one, and keep the public
   * key of the old one among those that `verify` is given.
   */
  readonly key?: string
}

export interface ProofSettings {
  readonly isOn: boolean
  readonly key: ProofKey | undefined
  readonly everyMs: number
}

const EVERY_MS = 5000
/** Sealing waits for blocks, so they come more often where it is quick. */
const OF_SEAL = 4
const LEAST_MS = 100

/** Throws InvalidError for a key that is none. */
export function proofSettings(
  proof: boolean | ProofOptions = true,
  sealAfterMs?: number,
  env: NodeJS.ProcessEnv = process.env,
): ProofSettings {
  if (typeof proof !== 'boolean' && (typeof proof !== 'object' || proof === null))
    throw new InvalidError('engine: proof must be true, false, or an object such as { key }')
  if (typeof proof === 'object') refuseUnknown('engine: proof', proof, ['key'])
  const everyMs = Math.max(LEAST_MS, Math.min(EVERY_MS, (sealAfterMs ?? Number.POSITIVE_INFINITY) / OF_SEAL))
  return { isOn: proof !== false, key: proofKey(typeof proof === 'object' ? proof.key : undefined, env), everyMs }
}

/** The key of the options, or of the environment; undefined where there is none. */
export function proofKey(key: string | undefined, env: NodeJS.ProcessEnv = process.env): ProofKey | undefined {
  if (key !== undefined) return parseProofKey('engine: proof.key', key)
  if (env.FLOWSTONE_PROOF_KEY) return parseProofKey('FLOWSTONE_PROOF_KEY', env.FLOWSTONE_PROOF_KEY)
  const file = env.FLOWSTONE_PROOF_KEY_FILE
  if (!file) return undefined
  try {
    return parseProofKey(`the file of FLOWSTONE_PROOF_KEY_FILE`, readFileSync(file, 'utf8'))
  } catch (cause) {
    if (cause instanceof InvalidError) throw cause
    throw new InvalidError(`FLOWSTONE_PROOF_KEY_FILE cannot be read: ${messageOf(cause)}`, { cause })
  }
}
