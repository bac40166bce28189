/**
 * Headers of messages, as text. The library checks and copies each name and value several times.
 * That takes four times as long as what is done here.
 */
import { MsgHdrsImpl, MsgImpl } from '@nats-io/nats-core/internal'
import { InvalidError } from '../../streams/errors.ts'

export type HeaderList = readonly (readonly [name: string, value: string])[]

const VERSION = 'NATS/1.0'
const BREAK = /[\r\n]/
const NAME = /^[!-9;-~]+$/

/**
 * Throws InvalidError for a value of several lines, whose rest would be headers of its own, and for
 * a name with a blank, a colon or a control character.
 */
export function headerText(list: HeaderList): string {
  let text = VERSION
  for (const [name, value] of list) {
    if (BREAK.test(value)) throw new InvalidError(`a value of header ${name} has a line break`)
    if (!NAME.test(name)) throw new InvalidError(`${JSON.stringify(name)} cannot be the name of a header`)
    text += `\r\n${name}: ${value.trim()}`
  }
  return `${text}\r\n\r\n`
}

/** What the library sends for a message. */
export class HeaderBlock extends MsgHdrsImpl {
  readonly #text: string

  constructor(list: HeaderList) {
    super()
    this.#text = headerText(list)
  }

  override encode(): Uint8Array {
    return Buffer.from(this.#text)
  }
}

/** Of several headers of one name the first one counts. */
export type Headers = Pick<ReadonlyMap<string, string>, 'get' | 'has' | typeof Symbol.iterator>

/** Of most messages one header is asked for: the others are not taken out of the text. */
export class ReceivedHeaders implements Headers {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  get(name: string): string | undefined {
    const at = this.#text.indexOf(`\r\n${name}:`)
    if (at < 0) return undefined
    const from = at + name.length + 3
    const end = this.#text.indexOf('\r\n', from)
    return this.#text.slice(from, end < 0 ? undefined : end).trim()
  }

  has(name: string): boolean {
    return this.#text.includes(`\r\n${name}:`)
  }

  [Symbol.iterator](): MapIterator<[string, string]> {
    return parseHeaderText(this.#text)[Symbol.iterator]()
  }
}

/** Of several headers of one name the first one counts. */
export function parseHeaderText(text: string): ReadonlyMap<string, string> {
  const result = new Map<string, string>()
  for (const line of text.split('\r\n').slice(1)) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon)
    if (colon > 0 && !result.has(name)) result.set(name, line.slice(colon + 1).trim())
  }
  return result
}

/** The headers of a message of a stream as they came; undefined where the library hides them. */
export function receivedText(message: object): string | undefined {
  const core: unknown = message instanceof MsgImpl ? message : Reflect.get(message, 'msg')
  if (!(core instanceof MsgImpl)) return undefined
  const { buffer, byteOffset } = core._rdata
  return core._msg.hdr > 0 ? Buffer.from(buffer, byteOffset, core._msg.hdr).toString('utf8') : VERSION
}
