import { headers } from '@nats-io/nats-core'
import { MsgImpl } from '@nats-io/nats-core/internal'
import { describe, expect, it } from 'vitest'
import { HeaderBlock, headerText, parseHeaderText, ReceivedHeaders, receivedText } from '../../src/log/headers.ts'

const LIST = [
  ['Content-Type', 'application/json'],
  ['Nats-Msg-Id', ' café '],
] as const

describe('headers of a message', () => {
  it('are the bytes that the library would send', () => {
    const h = headers()
    for (const [name, value] of LIST) h.set(name, value)
    expect(headerText(LIST)).toBe(String(h))
    expect(Buffer.from(new HeaderBlock(LIST).encode()).toString()).toBe(String(h))
  })

  it('are refused with the name of a value that has a line break', () => {
    expect(() => headerText([['Fs-Task', 'a\r\nNats-Rollup: all']])).toThrow(
      'a value of header Fs-Task has a line break',
    )
  })

  it.each(['a\r\nb', 'a b', 'a:b', ''])('are refused where %j is a name', (name) => {
    expect(() => headerText([[name, '1']])).toThrow(`${JSON.stringify(name)} cannot be the name of a header`)
  })

  it('are read as they were written, and the first of one name counts', () => {
    expect([...parseHeaderText(`${headerText([...LIST, ['Content-Type', 'b']])}`)]).toEqual([
      ['Content-Type', 'application/json'],
      ['Nats-Msg-Id', 'café'],
    ])
  })

  it('are found one by one in the text as in the whole', () => {
    const text = headerText([...LIST, ['Type', 'x'], ['Empty', ''], ['Content-Type', 'b']])
    const [found, all] = [new ReceivedHeaders(text), parseHeaderText(text)]
    expect([...found]).toEqual([...all])
    for (const name of [...all.keys(), 'Content', 'content-type', 'application/json', '']) {
      expect(found.get(name)).toBe(all.get(name))
      expect(found.has(name)).toBe(all.has(name))
    }
    expect(new ReceivedHeaders('NATS/1.0\r\nLast: 1').get('Last')).toBe('1')
  })

  it('are found in a message as the library has it, and in what wraps one', () => {
    const text = headerText(LIST)
    const hdr = Buffer.byteLength(text)
    const arg = { subject: Buffer.from('a'), sid: 1, hdr, size: hdr + 4 }
    const message = new MsgImpl(arg, Buffer.from(`${text}body`), { publish: () => undefined })
    expect(receivedText(message)).toBe(text)
    expect(receivedText({ msg: message })).toBe(text)
    expect(receivedText({ data: 1 })).toBeUndefined()
  })
})
