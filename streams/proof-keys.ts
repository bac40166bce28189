/** Keys that blocks of the proof are signed with: Ed25519. The private one is the operator's. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto'
import { InvalidError } from './errors.ts'

/** What is signed begins so: a signature for this is good for nothing else. */
const DOMAIN = Buffer.from('flowstone proof 1\n')
/** DER of an Ed25519 public key is this, and the 32 bytes of the key. */
const SPKI = Buffer.from('302a300506032b6570032100', 'hex')
const KEY_BYTES = 32

export interface ProofKey {
  /** The 32 bytes of the public key, in base64. */
  readonly publicKey: string
  readonly sign: (bytes: Uint8Array) => Uint8Array
}

/** A private key in PEM. Throws InvalidError for anything else, and never says what it is. */
export function parseProofKey(where: string, pem: string): ProofKey {
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch {
    throw new InvalidError(`${where} is no private key in PEM; make one with \`flowstone proof key --new FILE\``)
  }
  if (key.asymmetricKeyType !== 'ed25519')
    throw new InvalidError(
      `${where} is a key of type ${key.asymmetricKeyType ?? 'unknown'}, and must be Ed25519; make one with \`flowstone proof key --new FILE\``,
    )
  return {
    publicKey: rawPublicKey(createPublicKey(key)),
    sign: (bytes) => sign(null, Buffer.concat([DOMAIN, bytes]), key),
  }
}

/** A new private key, in PEM. */
export function newProofKey(): string {
  return generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
}

/** A public key as `flowstone proof key` prints it, or in PEM. Returns the first. */
export function parsePublicKey(where: string, text: string): string {
  const trimmed = text.trim()
  if (trimmed.startsWith('-----')) {
    try {
      const key = createPublicKey(trimmed)
      if (key.asymmetricKeyType === 'ed25519') return rawPublicKey(key)
    } catch {
      // Said below.
    }
  } else if (Buffer.from(trimmed, 'base64').length === KEY_BYTES)
    return Buffer.from(trimmed, 'base64').toString('base64')
  throw new InvalidError(
    `${where} must be an Ed25519 public key: 32 bytes in base64, as \`flowstone proof key\` prints it, or PEM`,
  )
}

export function signed(publicKey: string, bytes: Uint8Array, signature: Uint8Array): boolean {
  const raw = Buffer.from(publicKey, 'base64')
  if (raw.length !== KEY_BYTES) return false
  try {
    const key = createPublicKey({ key: Buffer.concat([SPKI, raw]), format: 'der', type: 'spki' })
    return verify(null, Buffer.concat([DOMAIN, bytes]), key, signature)
  } catch {
    return false
  }
}

function rawPublicKey(key: KeyObject): string {
  return key.export({ type: 'spki', format: 'der' }).subarray(SPKI.length).toString('base64')
}
