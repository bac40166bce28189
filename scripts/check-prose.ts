/**
 * Checks the form of what people read: Markdown pages and comments.
 *
 *     node scripts/check-prose.ts [--docs] [--comments] [FILE …]
 *
 * Without a flag it checks both; without a FILE, all files that git knows. Limits: 100 columns a
 * line, 30 words a sentence, 8 lines a paragraph, 300 characters a table cell, and no banned words.
 * Code blocks, tables, diagrams (indented by two spaces in a comment) and lines of one unbreakable
 * word may be wider. A long sentence in a comment is an error only in the sources of the package.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

export interface Problem {
  readonly line: number
  readonly kind: 'columns' | 'sentence' | 'paragraph' | 'cell' | 'word'
  readonly message: string
}

/** Lines of prose that belong together, without their markers. */
interface Paragraph {
  readonly line: number
  readonly lines: string[]
}

const COLUMNS = 100
const WORDS = 30
const PARAGRAPH_LINES = 8
const CELL_CHARACTERS = 300
/** Words of an earlier manual, and some that a reader from abroad has to guess. */
const BANNED =
  /\b(told|mended|a word from|what died|in its hands|puts its word|at work|stands still|has the word|goes on from|comes again|tells of|is over(?! \d))\b/gi
const PACKAGE = /^(src|projections|streams)\//
const COMMENTED = /^(src|projections|streams|scripts|examples|bench|test)\/.*\.(ts|mjs)$/
const LIST_ITEM = /^\s*(?:[-*+]|\d+\.)\s+/

export function checkMarkdown(text: string): Problem[] {
  const problems: Problem[] = []
  const paragraphs: Paragraph[] = []
  let open: Paragraph | undefined
  let fence: string | undefined
  let isList = false
  for (const [at, raw] of text.split('\n').entries()) {
    const line = at + 1
    const [, mark] = /^\s*(```+|~~~+)/.exec(raw) ?? []
    if (fence !== undefined || mark !== undefined) {
      fence = fence === undefined ? mark : mark?.startsWith(fence) ? undefined : fence
      open = undefined
      continue
    }
    const isItem = LIST_ITEM.test(raw)
    const isCode = !open && !isList && /^ {4}/.test(raw)
    if (raw.trim() === '' || isCode || /^\s*<[!/a-z]|^\s*\[[^\]]+\]: /i.test(raw)) {
      open = undefined
      continue
    }
    isList = isItem || (isList && /^\s/.test(raw))
    if (/^\s*\|/.test(raw)) {
      problems.push(...checkCells(raw, line))
      open = undefined
      continue
    }
    if (raw.length > COLUMNS && /\s/.test(proseOf(raw))) problems.push(columns(line, raw))
    const isHeading = raw.startsWith('#')
    if (!open || isItem || isHeading) {
      open = { line, lines: [] }
      paragraphs.push(open)
    }
    open.lines.push(proseOf(raw))
    if (isHeading) open = undefined
  }
  return [...problems, ...paragraphs.flatMap(checkParagraph)].sort((a, b) => a.line - b.line)
}

export function checkComments(text: string): Problem[] {
  const problems: Problem[] = []
  const paragraphs: Paragraph[] = []
  let open: Paragraph | undefined
  for (const { line, raw, prose } of commentLines(text)) {
    const isFree = /https?:\/\/|biome-ignore|@ts-|#(end)?region/.test(raw) || /^ {2}/.test(prose)
    if (raw.length > COLUMNS && !isFree) problems.push(columns(line, raw))
    if (isFree || prose.trim() === '') {
      open = undefined
      continue
    }
    const isNext = open !== undefined && open.line + open.lines.length === line
    if (!open || !isNext || LIST_ITEM.test(prose) || /^\s*@/.test(prose)) {
      open = { line, lines: [] }
      paragraphs.push(open)
    }
    open.lines.push(proseOf(prose))
  }
  return [...problems, ...paragraphs.flatMap(checkParagraph)].sort((a, b) => a.line - b.line)
}

/**
 * Each line that is a comment or ends with one. `prose` is its text with the one space after the
 * mark taken away. Comments inside template literals count too.
 */
function* commentLines(text: string): Generator<{ line: number; raw: string; prose: string }> {
  let isBlock = false
  for (const [at, raw] of text.split('\n').entries()) {
    const line = at + 1
    const begins = !isBlock && /^\s*\/\*/.test(raw)
    if (isBlock || begins) {
      isBlock = !raw.includes('*/')
      yield { line, raw, prose: raw.replace(/^\s*(?:\/\*\*?|\*(?!\/))? ?/, '').replace(/\s*\*\/.*$/, '') }
      continue
    }
    const [, comment] = /^\s*\/\/ ?(.*)$/.exec(raw) ?? /\s\/\/ (?=[^'"`]*$)(.*)$/.exec(raw) ?? []
    if (comment !== undefined) yield { line, raw, prose: comment }
  }
}

function checkParagraph({ line, lines }: Paragraph): Problem[] {
  const problems: Problem[] = []
  if (lines.length > PARAGRAPH_LINES)
    problems.push({ line, kind: 'paragraph', message: `a paragraph of ${lines.length} lines` })
  problems.push(...checkSentences(lines.join('\n'), line))
  return problems
}

function checkCells(row: string, line: number): Problem[] {
  const cells = row.split(/(?<!\\)\|/).map((cell) => cell.trim())
  return cells.flatMap((cell) => {
    const long: Problem = { line, kind: 'cell', message: `a table cell of ${cell.length} characters` }
    return [...(cell.length > CELL_CHARACTERS ? [long] : []), ...checkSentences(cell, line)]
  })
}

function checkSentences(text: string, line: number): Problem[] {
  const prose = text.replace(/`[^`]*`/g, 'x').replace(/\]\([^)\s]*\)/g, ']')
  const long = prose.split(/(?<=[.!?]["')\]*_]*)\s+/).flatMap((sentence): Problem[] => {
    const words = sentence.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word))
    if (words.length <= WORDS) return []
    return [
      { line, kind: 'sentence', message: `a sentence of ${words.length} words: ${words.slice(0, 6).join(' ')} …` },
    ]
  })
  const banned = [...prose.matchAll(BANNED)].map(
    ([word]): Problem => ({ line, kind: 'word', message: `a banned word: ${word}` }),
  )
  return [...long, ...banned]
}

function columns(line: number, raw: string): Problem {
  return { line, kind: 'columns', message: `${raw.length} columns` }
}

/** A line without what marks it as a heading, a list item or a quotation. */
function proseOf(raw: string): string {
  return raw
    .replace(LIST_ITEM, '')
    .replace(/^\s*(#+|>)\s+/, '')
    .trim()
}

function main(): void {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { docs: { type: 'boolean' }, comments: { type: 'boolean' } },
  })
  const both = !values.docs && !values.comments
  process.chdir(fileURLToPath(new URL('..', import.meta.url)))
  const known = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { encoding: 'utf8' })
  const files = positionals.length > 0 ? positionals : known.trimEnd().split('\n')
  let errors = 0
  for (const file of files.filter((name) => existsSync(name))) {
    const isPage = file.endsWith('.md') && (both || values.docs)
    const isCode = COMMENTED.test(file) && (both || values.comments)
    if (!isPage && !isCode) continue
    const text = readFileSync(file, 'utf8')
    for (const { line, kind, message } of isPage ? checkMarkdown(text) : checkComments(text)) {
      const isRemark = isCode && kind === 'sentence' && !PACKAGE.test(file)
      if (!isRemark) errors += 1
      console.log(`${file}:${line}: ${message}${isRemark ? ' (a remark)' : ''}`)
    }
  }
  console.log(`prose: ${errors === 0 ? 'no errors' : `${errors} errors`}`)
  if (errors > 0) process.exitCode = 1
}

if (import.meta.main) main()
