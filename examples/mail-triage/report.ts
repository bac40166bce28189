/** How good the verdicts are: counting them, and the table that people read. Pure. */
import type { Label } from './corpus.ts'

export interface Verdict {
  /** What people said it is. */
  readonly label: Label
  /** What the model says. */
  readonly spam: boolean
  /** Logarithm of the odds that it is spam. */
  readonly score: number
  /** How long the judging took, in milliseconds. */
  readonly ms: number
}

/** One entry of what a scatter hands to its gather. */
export type VerdictResult =
  | { readonly key: { readonly mail: string }; readonly status: 'ok'; readonly value: Verdict }
  | { readonly key: { readonly mail: string }; readonly status: 'failed' }

export interface Matrix {
  /** Spam that was found. */
  readonly truePositive: number
  /** Ham that was taken for spam: somebody misses a mail. */
  readonly falsePositive: number
  /** Spam that got through. */
  readonly falseNegative: number
  readonly trueNegative: number
}

export interface TimedMail {
  readonly mail: string
  readonly ms: number
}

export interface Tally {
  readonly matrix: Matrix
  /** Mails without a verdict. */
  readonly failed: number
  readonly totalMs: number
  readonly slowest: readonly TimedMail[]
}

/** Shares are from 0 to 1, and null where there is nothing to divide by. */
export interface Scores {
  /** Verdicts that are right, of all. */
  readonly accuracy: number | null
  /** Real spam, of what was judged spam. */
  readonly precision: number | null
  /** Spam that was found, of all spam. */
  readonly recall: number | null
  /** Harmonic mean of precision and recall. */
  readonly f1: number | null
}

export interface Report extends Tally, Scores {
  readonly judged: number
  readonly trainedOn: { readonly spam: number; readonly ham: number }
  readonly telling: { readonly spam: readonly string[]; readonly ham: readonly string[] }
}

/**
 * Counts verdicts one by one as they come, so it needs the memory of one however many there are.
 * Keeps the `keep` slowest.
 */
export async function tally(results: AsyncIterable<VerdictResult> | Iterable<VerdictResult>, keep = 5): Promise<Tally> {
  const matrix = { truePositive: 0, falsePositive: 0, falseNegative: 0, trueNegative: 0 }
  let failed = 0
  let totalMs = 0
  let slowest: TimedMail[] = []
  for await (const result of results) {
    if (result.status === 'failed') {
      failed++
      continue
    }
    const { label, spam, ms } = result.value
    matrix[cell(label, spam)]++
    totalMs += ms
    const last = slowest.at(-1)
    if (slowest.length < keep || (last && ms > last.ms)) {
      slowest = [...slowest, { mail: result.key.mail, ms }].sort((a, b) => b.ms - a.ms).slice(0, keep)
    }
  }
  return { matrix, failed, totalMs, slowest }
}

function cell(label: Label, spam: boolean): keyof Matrix {
  if (label === 'spam') return spam ? 'truePositive' : 'falseNegative'
  return spam ? 'falsePositive' : 'trueNegative'
}

export function judged({ truePositive, falsePositive, falseNegative, trueNegative }: Matrix): number {
  return truePositive + falsePositive + falseNegative + trueNegative
}

export function scores(matrix: Matrix): Scores {
  const { truePositive, falsePositive, falseNegative, trueNegative } = matrix
  return {
    accuracy: share(truePositive + trueNegative, judged(matrix)),
    precision: share(truePositive, truePositive + falsePositive),
    recall: share(truePositive, truePositive + falseNegative),
    f1: share(2 * truePositive, 2 * truePositive + falsePositive + falseNegative),
  }
}

function share(part: number, whole: number): number | null {
  return whole === 0 ? null : part / whole
}

/** The report as text, for a terminal of 80 columns. */
export function render(report: Report): string {
  const { matrix, trainedOn } = report
  const mean = share(report.totalMs, report.judged)
  const lines = [
    `Judged ${int(report.judged)} mails by a model that had read ${int(trainedOn.spam + trainedOn.ham)} others (${int(trainedOn.spam)} of them spam).`,
    ...(report.failed > 0 ? [`${int(report.failed)} without a verdict.`] : []),
    '',
    ...columns([
      ['', 'judged spam', 'judged ham'],
      ['is spam', int(matrix.truePositive), int(matrix.falseNegative)],
      ['is ham', int(matrix.falsePositive), int(matrix.trueNegative)],
    ]),
    '',
    ...columns([
      ['accuracy', percent(report.accuracy), '  of all verdicts are right'],
      ['precision', percent(report.precision), '  of what was judged spam is spam'],
      ['recall', percent(report.recall), '  of the spam was found'],
      ['F1', percent(report.f1), '  precision and recall in one number'],
    ]),
    '',
    `most telling for spam   ${report.telling.spam.join(', ')}`,
    `most telling for ham    ${report.telling.ham.join(', ')}`,
    '',
    ...columns([
      ['slowest mails', 'ms'],
      ...report.slowest.map(({ mail, ms }) => [mail, ms.toFixed(1)]),
      ['mean of all', mean === null ? '–' : mean.toFixed(1)],
    ]),
  ]
  return lines.join('\n')
}

/**
 * Aligns cells: the first column to the left, numbers to the right, and a cell that starts with a
 * blank to the left.
 */
export function columns(rows: readonly (readonly string[])[]): string[] {
  const width = (column: number) => Math.max(...rows.map((row) => row[column]?.length ?? 0))
  return rows.map((row) =>
    row
      .map((text, column) =>
        column === 0 || text.startsWith(' ') ? text.padEnd(width(column)) : text.padStart(width(column) + 2),
      )
      .join('')
      .trimEnd(),
  )
}

export function int(n: number): string {
  return n.toLocaleString('en-US')
}

function percent(x: number | null): string {
  return x === null ? '–' : `${(100 * x).toFixed(1)} %`
}
