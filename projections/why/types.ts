/** What an explanation is made of: sentences, each with the fact that it rests on. */
import type { Fact, FactName } from '../../streams/facts.ts'
import type { RunId } from '../../streams/ids.ts'
import type { AssetStatus, RunState } from '../state.ts'

/** The fact behind a sentence: where it stands on the log, what it is, and when it was stored. */
export interface WhyFact {
  readonly shard: number
  /** Sequence on the log of the shard. */
  readonly seq: number
  /** What happened, such as `attempt.ended`. */
  readonly kind: FactName
  /** The server's clock when the fact was stored. */
  readonly at: Date
  readonly ids: Readonly<Record<string, string>>
}

/** What a sentence is about. A run other than the one that was asked for may be a cause of it. */
export interface WhyAbout {
  readonly run: string
  readonly asset?: string
  readonly gate?: string
}

/** One step of an explanation, in words, and the fact that proves it. */
export interface WhyLink {
  readonly text: string
  readonly fact: WhyFact
  readonly about: WhyAbout
}

/** What is so at this moment, and stands in no fact: free workers, slots, a queue. */
export interface WhyState {
  readonly text: string
  readonly about: WhyAbout
}

/** Why a run, or an asset of a run, is as it is. */
export interface Why {
  /** What is explained: a run, or an asset of it. */
  readonly of: WhyAbout & { readonly pipeline: string; readonly target: string; readonly partition?: string }
  /** Of the run, or of the asset, by its facts. */
  readonly status: RunState['status'] | AssetStatus
  /** The answer in a sentence. */
  readonly verdict: WhyLink
  /** From cause to effect. The last one is the present state. */
  readonly chain: readonly WhyLink[]
  /** What is so just now. Empty for what has ended. */
  readonly state: readonly WhyState[]
  /** Other runs that the chain names: their own explanations go on from there. */
  readonly runs: readonly string[]
}

/** An instance of a scatter that failed for good, and the fact with the error that counted. */
export interface FailedAt {
  readonly index: number
  readonly seq: number
}

/** What is known of a run beside its own facts. */
export interface WhyInput {
  readonly run: RunId
  /** Of the run, and `pipeline.registered` of its versions. Outcomes of scatters may be missing. */
  readonly facts: readonly Fact[]
  /** Of other runs, and of triggers and schedules, as far as the run names them. */
  readonly others?: readonly Fact[]
  /** It waits for its turn behind others of its concurrency key. No fact says so. */
  readonly queued?: { readonly behind: readonly string[] }
  /** It waited for its turn, and this is what ended that. */
  readonly turn?: Fact
  /** The last fact that the state shows. What follows from later ones may not be done yet. */
  readonly foldedTo?: number
  /** By asset: instances that failed. */
  readonly failed?: ReadonlyMap<string, readonly FailedAt[]>
}
