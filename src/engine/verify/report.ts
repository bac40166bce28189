/** What verifying finds, and how it says so. */

/** Something that is not as it should be. */
export interface VerifyFinding {
  /** Which check found it. */
  readonly check: string
  /** What it is, such as `document_differs`. */
  readonly kind: string
  /** Undefined: of the whole namespace. */
  readonly shard?: number
  /** A document: the key of its bucket. */
  readonly document?: string
  /** A field of it. */
  readonly field?: string | undefined
  /** What the log says, and what is there. Undefined: it is not there. */
  readonly expected?: unknown
  readonly found?: unknown
  /** A fact: its path, and its sequence on the log. */
  readonly fact?: string
  readonly seq?: number | undefined
  /** A stored value: its name in the object store. */
  readonly value?: string
  /** In a sentence. */
  readonly message: string
  /** What to do. */
  readonly advice: string
}

/** How much a check has looked at. */
export interface VerifyCheckReport {
  readonly check: string
  readonly shard?: number
  /** What was counted, by name: documents, facts, packs. */
  readonly looked: Readonly<Record<string, number>>
}

/** What `flow.verify` found. */
export interface VerifyReport {
  /** Nothing differs, and all that was asked for was looked at. */
  readonly ok: boolean
  readonly findings: readonly VerifyFinding[]
  /** Findings beyond those that are listed. */
  readonly more: number
  readonly checks: readonly VerifyCheckReport[]
  /** What could not be looked at, and why. */
  readonly notes: readonly string[]
  /** Facts that were read. */
  readonly facts: number
  readonly durationMs: number
}

/** How far it is. */
export interface VerifyProgress {
  readonly shard: number
  /** What it does, such as `reading the log`. */
  readonly step: string
  readonly done: number
  /** Undefined: it is not known. */
  readonly total?: number
}

export class Findings {
  readonly #most: number
  readonly listed: VerifyFinding[] = []
  readonly #notes: string[] = []
  readonly checks: VerifyCheckReport[] = []
  more = 0
  #unseen = 0

  constructor(most: number) {
    this.#most = most
  }

  add(finding: VerifyFinding): void {
    if (this.listed.length < this.#most) this.listed.push(finding)
    else this.more += 1
  }

  /** What could not be looked at: nobody knows whether it is as it should be. */
  unseen(what: string, why: string): void {
    const text = `could not look at ${what}: ${why}`
    if (this.#notes.includes(text)) return
    if (this.#notes.length < this.#most) this.#notes.push(text)
    else this.#unseen += 1
  }

  get notes(): readonly string[] {
    return this.#unseen === 0 ? this.#notes : [...this.#notes, `could not look at ${this.#unseen} other things`]
  }

  get isGood(): boolean {
    return this.listed.length === 0 && this.#notes.length === 0
  }

  looked(check: string, shard: number | undefined, looked: Readonly<Record<string, number>>): void {
    this.checks.push({ check, ...(shard === undefined ? {} : { shard }), looked })
  }
}
