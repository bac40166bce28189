import { describe, expect, it } from 'vitest'
import { checkComments, checkMarkdown, type Problem } from '../../scripts/check-prose.ts'

const WIDE = `${'word '.repeat(21)}end`
const LONG = `${'word '.repeat(16)}\n${'word '.repeat(15)}end.`
const brief = (problems: readonly Problem[]): string[] => problems.map(({ line, kind }) => `${line} ${kind}`)

describe('of a page', () => {
  it.each([
    ['a line over 100 columns', `a\n\n${WIDE}`, ['3 columns']],
    ['a heading over 100 columns', `# ${WIDE}`, ['1 columns']],
    ['a sentence over 30 words, at the start of its paragraph', `a\n\n${LONG}`, ['3 sentence']],
    ['a long sentence in an item of a list', `- a\n- ${LONG}`, ['2 sentence']],
    ['a paragraph over 8 lines', 'a.\n'.repeat(9), ['1 paragraph']],
    ['a banned word', 'He is told so.', ['1 word']],
    ['a banned word in a table', '| a |\n|---|\n| stands still |', ['3 word']],
    ['a table cell over 300 characters', `| ${'a. '.repeat(101)} |`, ['1 cell']],
  ])('%s is a problem', (_, page, problems) => {
    expect(brief(checkMarkdown(page))).toEqual(problems)
  })

  it.each([
    ['a code block', `a\n\`\`\`ts\n${WIDE}\n told\n\`\`\`\nb`],
    ['an indented code block', `a\n\n    ${WIDE}\n\nb`],
    ['a wide table', `| ${'word. '.repeat(21)} |`],
    ['a link reference', `[a]: https://example.org/${'a'.repeat(100)} "a title"`],
    ['one unbreakable word', `- https://example.org/${'a'.repeat(100)}`],
    ['a comment of HTML', `<!-- ${WIDE} -->`],
    ['a long list of short items', '- a\n'.repeat(20)],
    ['code that counts as one word', `Call \`${'a '.repeat(30)}\`.`],
    [
      'two sentences',
      `${'word '.repeat(16)}\n${'word '.repeat(5)}end. ${'word '.repeat(10)}\n${'word '.repeat(10)}end.`,
    ],
    ['a number above a limit', 'The count is over 100.'],
  ])('%s is no problem', (_, page) => {
    expect(checkMarkdown(page)).toEqual([])
  })
})

describe('of comments', () => {
  it.each([
    ['a line over 100 columns', `a()\n// ${WIDE}`, ['2 columns']],
    ['a comment over 100 columns with its indentation', `${' '.repeat(60)}// ${'word '.repeat(8)}end`, ['1 columns']],
    ['a comment behind code', `${'a()\n'}const a = 1 // ${WIDE}`, ['2 columns']],
    ['a line of a block', `/**\n * ${WIDE}\n */`, ['2 columns']],
    ['a sentence over 30 words', `/**\n * ${LONG.replace('\n', '\n * ')}\n */`, ['2 sentence']],
    ['a banned word', '/** It is told so. */', ['1 word']],
  ])('%s is a problem', (_, source, problems) => {
    expect(brief(checkComments(source))).toEqual(problems)
  })

  it.each([
    ['wide code', `const a = '${WIDE}'`],
    ['a string with an address', `const a = '${'a'.repeat(90)} http://example.org'`],
    ['a comment with an address', `// ${'word '.repeat(18)} https://example.org/`],
    ['a directive', `// biome-ignore lint/a/b: ${WIDE}`],
    ['a diagram', `/**\n *   ${WIDE}\n */`],
    ['two comments that are apart', `// ${'word '.repeat(18)}\na()\n// ${'word '.repeat(18)}`],
  ])('%s is no problem', (_, source) => {
    expect(checkComments(source)).toEqual([])
  })
})
