import { expect, it } from 'vitest'
import { isSameStoredMs } from '../../src/log/stored-ms.ts'

it('when a message was stored is known again though an earlier version has read it a millisecond late', () => {
  expect(isSameStoredMs(116, 117)).toBe(true)
  expect(isSameStoredMs(116, 118)).toBe(false)
})
