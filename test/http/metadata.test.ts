import fc from 'fast-check'
import { expect, it } from 'vitest'
import { metadataTable, text } from '../../src/http/gates/metadata.ts'
import { runs } from '../kit/runs.ts'

async function shown(value: unknown): Promise<string> {
  return String(await metadataTable(value))
}

it('names and values stand in a table, lists in lists', async () => {
  expect(await shown({ rows: 12, ok: true, tags: ['a', 'b'] })).toBe(
    '<table><tbody><tr><th scope="row"><bdi>rows</bdi></th><td>12</td></tr>' +
      '<tr><th scope="row"><bdi>ok</bdi></th><td>yes</td></tr>' +
      '<tr><th scope="row"><bdi>tags</bdi></th><td><ol><li><bdi class="text">a</bdi></li><li><bdi class="text">b</bdi></li></ol></td></tr></tbody></table>',
  )
})

/** What may stand between angle brackets: the table's own tags. */
const OWN_TAGS = /<\/?(table|tbody|tr|th|td|ol|li|bdi|p|span)( scope="row"| class="(text|more)")?>/g

it('no value, whatever it is, brings a tag or an attribute of its own', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(fc.jsonValue({ maxDepth: 7 }), fc.anything({ withDate: true, withTypedArray: true, withBigInt: true })),
      fc.constantFrom(
        '<script>',
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='",
        '</td></table><form>',
        '&lt;b&gt;',
        '<!--',
      ),
      async (value, hostile) => {
        const html = await shown({ value, [hostile]: hostile })
        expect(html.replaceAll(OWN_TAGS, '')).not.toMatch(/[<>"']/)
      },
    ),
    runs(100),
  )
})

it('what turns the direction of text, or is not seen, is made to be seen', () => {
  expect(text('a\u202eb\u0000c\u200bd')).toBe('a‹U+202E›b‹U+0000›c‹U+200B›d')
  expect(text('two\r\nlines\tand 👩‍💻')).toBe('two\nlines\tand 👩‍💻')
})

it('it stays short, however much there is', async () => {
  const deep = JSON.parse(`${'{"a":'.repeat(50)}1${'}'.repeat(50)}`)
  const wide = Object.fromEntries(
    Array.from({ length: 5000 }, (_, i) => [`name${i}`, { list: Array(500).fill('x'.repeat(9000)) }]),
  )
  expect((await shown(deep)).length).toBeLessThan(10_000)
  expect((await shown(wide)).length).toBeLessThan(5_000_000)
  expect(await shown(wide)).toContain('and 4900 more')
})

it('a number that JSON cannot say is shown all the same, however deep it stands', async () => {
  const deep = { a: { b: { c: { d: { e: { f: { g: { h: 7n } } } } } } } }
  expect(await shown(deep)).toContain('7')
})
