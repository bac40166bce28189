import { describe, expect, it } from 'vitest'
import { isSameStoredMs, storedMsOf } from '../../src/log/stored-ms.ts'

/** A message as the library has it: the number is what it makes of the text. */
function stored(nanos: string, domain = '_.hash.'): Parameters<typeof storedMsOf>[0] {
  const reply = `$JS.ACK.${domain}LOG.reader.1.11.11.${nanos}.0${domain ? '.random' : ''}`
  return { info: { timestampNanos: Number.parseInt(nanos, 10) }, reply } as never
}

describe('when a message was stored', () => {
  it.each([
    ['1795980296116999999', 1_795_980_296_116],
    ['1795980296116999900', 1_795_980_296_116],
    ['1795980296117000000', 1_795_980_296_117],
    ['1795980296117000001', 1_795_980_296_117],
    ['1795980296117500000', 1_795_980_296_117],
  ])('%s ns is the millisecond that the text of the server has', (nanos, ms) => {
    expect(storedMsOf(stored(nanos))).toBe(ms)
    expect(storedMsOf(stored(nanos, ''))).toBe(ms)
    const text = new Date(ms).toISOString().replace('Z', `${nanos.slice(-6)}Z`)
    expect(Date.parse(text)).toBe(ms)
  })

  it('is known again though an earlier version has read it a millisecond late', () => {
    expect(isSameStoredMs(116, 117)).toBe(true)
    expect(isSameStoredMs(116, 118)).toBe(false)
  })
})
