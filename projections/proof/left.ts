/** What left the log by rule: looked up by sequence and path. */
import type { LeftRecord } from '../../streams/proof.ts'

interface Rule {
  readonly tokens: readonly string[]
  upTo: number
}

export class LeftByRule {
  /** By filter, by the first token of it. */
  readonly #rules = new Map<string, Map<string, Rule>>()
  #ranges: (readonly [from: number, to: number])[] = []
  readonly #blocks = new Set<number>()
  #isSorted = true

  add(record: LeftRecord): void {
    if (record.why === 'shrunk') {
      for (const n of record.blocks) this.#blocks.add(n)
      return
    }
    if (record.why !== 'folded') {
      for (const range of record.seqs) this.#ranges.push(range)
      this.#isSorted = false
      return
    }
    const tokens = record.path.split('.')
    const head = tokens[0] ?? ''
    const rules = this.#rules.get(head) ?? new Map<string, Rule>()
    this.#rules.set(head, rules)
    const rule = rules.get(record.path)
    if (!rule) rules.set(record.path, { tokens, upTo: record.upTo })
    else if (rule.upTo < record.upTo) rule.upTo = record.upTo
  }

  /** Whether all facts of a block have left. */
  hasBlock(n: number): boolean {
    return this.#blocks.has(n)
  }

  has(seq: number, path: string): boolean {
    if (this.#isInRange(seq)) return true
    const tokens = path.split('.')
    for (const rule of this.#rules.get(tokens[0] ?? '')?.values() ?? [])
      if (seq <= rule.upTo && isUnder(tokens, rule.tokens)) return true
    return false
  }

  #isInRange(seq: number): boolean {
    if (!this.#isSorted) this.#merge()
    let [low, high] = [0, this.#ranges.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#ranges[middle]?.[0] ?? 0) <= seq) low = middle + 1
      else high = middle
    }
    return seq <= (this.#ranges[low - 1]?.[1] ?? 0)
  }

  #merge(): void {
    const merged: [number, number][] = []
    for (const [from, to] of this.#ranges.toSorted(([a], [b]) => a - b)) {
      const last = merged.at(-1)
      if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to)
      else merged.push([from, to])
    }
    this.#ranges = merged
    this.#isSorted = true
  }
}

/** Where the run stands in the path of a fact. Undefined for a fact of no run. */
export function runOfPath(path: string): string | undefined {
  const tokens = path.split('.')
  switch (tokens[0]) {
    case 'run':
    case 'scatter':
    case 'gate':
      return tokens[1]
    case 'asset':
      return tokens[3]
    default:
      return undefined
  }
}

function isUnder(tokens: readonly string[], filter: readonly string[]): boolean {
  for (const [i, wanted] of filter.entries()) {
    if (wanted === '>') return tokens.length > i
    if (tokens[i] === undefined || (wanted !== '*' && wanted !== tokens[i])) return false
  }
  return tokens.length === filter.length
}
