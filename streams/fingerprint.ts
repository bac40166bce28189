/**
 * What a value was made of, as a short text. Two values with the same fingerprint were made by the
 * same code from the same values, so the one stands for the other.
 *
 * - hash of a value: of its bytes, or of the reference under which an I/O manager keeps it. A new
 *   reference counts as a new value.
 * - fingerprint: of the asset's shape (which has its `codeVersion`), of the options that decide
 *   which value comes out, and of the hash of each dependency's value.
 */
import { hash64 } from './ids.ts'
import type { AssetSpec, StoredValue } from './schemas.ts'

/** Hash of a value as it is stored: 16 hex digits. */
export function hashOfValue(stored: StoredValue): string {
  if ('json' in stored) return hash64(canonicalJson(stored.json))
  if ('msgpack' in stored) return hash64(`msgpack ${stored.msgpack}`)
  const { manager, ref } = stored
  // The object store of the namespace names values by their content.
  return hash64(manager === 'nats' ? `nats ${String(ref.hash)}` : `${manager} ${canonicalJson(ref)}`)
}

/** `hashes`: of the value of each dependency; undefined when one of them has none. */
export function fingerprintOf(
  spec: Pick<AssetSpec, 'shape' | 'dependsOn'> & { readonly scatter?: AssetSpec['scatter'] },
  hashes: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const parts: (readonly [string, string])[] = []
  for (const name of spec.dependsOn.toSorted()) {
    const hash = hashes[name]
    if (hash === undefined) return undefined
    parts.push([name, hash])
  }
  return hash64(JSON.stringify([spec.shape, spec.scatter?.threshold ?? null, parts]))
}

/** JSON with the members of each object in the order of their names. */
export function canonicalJson(value: unknown): string {
  if (isInOrder(value)) return JSON.stringify(value)
  return JSON.stringify(value, (_name, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )
}

/** Whether it is so already: to call a function for each member takes five times as long. */
function isInOrder(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true
  if (Array.isArray(value)) return value.every(isInOrder)
  let last = ''
  for (const [name, inner] of Object.entries(value)) {
    if (name < last || !isInOrder(inner)) return false
    last = name
  }
  return true
}
