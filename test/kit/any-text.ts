import fc from 'fast-check'

/**
 * One code point of any plane, as `unit` of a text. The `binary` of fast-check is the same. It
 * first makes a table of them all, which takes two seconds.
 */
export const codePoint = fc
  .oneof(
    fc.integer({ min: 0, max: 0x7f }),
    fc.integer({ min: 0, max: 0xd7ff }),
    fc.integer({ min: 0xe000, max: 0x10ffff }),
  )
  .map((point) => String.fromCodePoint(point))
