/**
 * Multinomial naive Bayes with Laplace smoothing, pure. A word's weight is how much more likely it
 * is in spam than in ham,
 *
 *     weight(w) = ln( (spamCount(w) + 1) / (spamTotal + V) )  −  ln( (hamCount(w) + 1) / (hamTotal + V) )
 *
 * where V is the number of distinct words. A mail's score is the prior, ln(spam mails / ham mails),
 * plus the weights of all its words: the logarithm of the odds that it is spam. Above 0 it is
 * judged spam. (Manning, Raghavan, Schütze: Introduction to Information Retrieval, 13.2.)
 */
import type { Label } from './corpus.ts'

export interface Example {
  readonly label: Label
  readonly tokens: readonly string[]
}

/**
 * What was learned, small enough to be the value of an asset. Numbers are rounded to 4 digits
 * behind the point.
 */
export interface Model {
  readonly trainedOn: { readonly spam: number; readonly ham: number }
  /** ln(spam mails / ham mails). */
  readonly prior: number
  /**
   * The words that tell most, the most telling first. Pairs and not an object: a mail may well hold
   * the word `constructor`.
   */
  readonly weights: readonly (readonly [token: string, weight: number])[]
}

export interface TrainOptions {
  /** How many words to keep. Default 8,000. */
  readonly vocabulary?: number
  /** A word that is in fewer mails is not kept: it was seen by chance. Default 2. */
  readonly minMails?: number
}

interface Count {
  spam: number
  ham: number
  mails: number
}

/** Learns. Throws when spam or ham is missing: there would be nothing to tell apart. */
export function train(examples: Iterable<Example>, { vocabulary = 8_000, minMails = 2 }: TrainOptions = {}): Model {
  const counts = new Map<string, Count>()
  const trainedOn = { spam: 0, ham: 0 }
  const totals = { spam: 0, ham: 0 }
  for (const { label, tokens } of examples) {
    trainedOn[label]++
    totals[label] += tokens.length
    for (const token of tokens) count(counts, token)[label]++
    for (const token of new Set(tokens)) count(counts, token).mails++
  }
  if (trainedOn.spam === 0 || trainedOn.ham === 0) {
    throw new Error(`training needs spam and ham, got ${trainedOn.spam} spam and ${trainedOn.ham} ham`)
  }

  const weights = Array.from(counts)
    .filter(([, { mails }]) => mails >= minMails)
    .map(([token, { spam, ham, mails }]) => {
      const weight =
        Math.log((spam + 1) / (totals.spam + counts.size)) - Math.log((ham + 1) / (totals.ham + counts.size))
      return { token, weight, telling: Math.abs(weight) * mails }
    })
    .sort((a, b) => b.telling - a.telling || (a.token < b.token ? -1 : 1))
    .slice(0, vocabulary)
    .map(({ token, weight }) => [token, round(weight)] as const)
  return { trainedOn, prior: round(Math.log(trainedOn.spam / trainedOn.ham)), weights }
}

/**
 * Makes the function that scores mails: the logarithm of the odds that it is spam. Words that the
 * model does not know say nothing.
 */
export function scorer({ prior, weights }: Model): (tokens: Iterable<string>) => number {
  const weightOf = new Map(weights)
  return (tokens) => {
    let score = prior
    for (const token of tokens) score += weightOf.get(token) ?? 0
    return round(score)
  }
}

/** Whether a score means spam. */
export function isSpam(score: number): boolean {
  return score > 0
}

/** The `n` most telling words for each side. */
export function tellingWords({ weights }: Model, n: number): { spam: string[]; ham: string[] } {
  const top = (sign: number) =>
    weights
      .filter(([, weight]) => weight * sign > 0)
      .slice(0, n)
      .map(([token]) => token)
  return { spam: top(1), ham: top(-1) }
}

function count(counts: Map<string, Count>, token: string): Count {
  const known = counts.get(token)
  if (known) return known
  const fresh = { spam: 0, ham: 0, mails: 0 }
  counts.set(token, fresh)
  return fresh
}

function round(x: number): number {
  return Math.round(x * 1e4) / 1e4
}
