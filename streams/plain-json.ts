/** Values of all kinds as JSON that other programs read: the command line, and HTTP. */

/**
 * JSON for people and scripts. What JSON has no word for is an object with one member that says
 * what it is: `{"$bytes":"aGk="}` (base64), `{"$bigint":"1"}`, `{"$number":"NaN"}` (and `-0`,
 * `Infinity`), `{"$map":[[key, value]]}`, `{"$set":[value]}`, `{"$Float32Array":"…"}` (base64). A
 * date is its ISO text. A member that is undefined is left out; elsewhere it is
 * `{"$undefined":true}`.
 */
export function jsonOf(value: unknown, indent?: number): string {
  return JSON.stringify(marked(value), undefined, indent)
}

function marked(value: unknown): unknown {
  switch (typeof value) {
    case 'undefined':
      return { $undefined: true }
    case 'bigint':
      return { $bigint: value.toString() }
    case 'number':
      return Number.isFinite(value) && !Object.is(value, -0)
        ? value
        : { $number: Object.is(value, -0) ? '-0' : String(value) }
    case 'function':
    case 'symbol':
      return String(value)
    default:
  }
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? { $date: 'invalid' } : value
  if (ArrayBuffer.isView(value)) {
    const base64 = Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64')
    return value instanceof Uint8Array ? { $bytes: base64 } : { [`$${value.constructor.name}`]: base64 }
  }
  if (value instanceof ArrayBuffer) return { $ArrayBuffer: Buffer.from(value).toString('base64') }
  if (value instanceof Map) return { $map: [...value].map(([key, inner]) => [marked(key), marked(inner)]) }
  if (value instanceof Set) return { $set: [...value].map(marked) }
  if (Array.isArray(value)) return Array.from(value, marked)
  const members = Object.entries(value).filter(([, inner]) => inner !== undefined)
  return Object.fromEntries(members.map(([name, inner]) => [name, marked(inner)]))
}
