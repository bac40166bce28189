/** Which attempt is the last, and whether it runs alone. When it begins is in backoff.ts. */
import type { AssetSpec, RetrySpec } from '../streams/schemas.ts'

/** What has happened to an attempt, an instance or a lease before. */
export interface Behind {
  readonly failures: number
  /** Its worker died while it ran. */
  readonly lost?: true
}

/** How instances of an asset are retried: their own rule where there is one, else the asset's. */
export function instanceRetry(spec: AssetSpec): RetrySpec {
  return spec.scatter?.retry ?? spec.retry
}

/**
 * The last attempt of what lost a worker before runs alone in its process. Not earlier ones: a
 * machine that is taken away with fifty long instances must not make one queue of them. With one
 * attempt there is nothing to run alone: the first loss is the end.
 */
export function runsAlone(behind: Behind, { maxAttempts }: RetrySpec): boolean {
  return behind.lost === true && behind.failures + 1 >= maxAttempts
}

/**
 * Failures after a lost worker. A loss counts, but only an instance that ran alone uses up its last
 * attempt by it: beside others, nobody knows which one was to blame. So an instance that failed
 * twice by itself, and then ran beside a poisonous one, is run once more.
 */
export function failuresAfterLoss(behind: Behind, retry: RetrySpec): number {
  const failures = behind.failures + 1
  return runsAlone(behind, retry) || retry.maxAttempts === 1 ? failures : Math.min(failures, retry.maxAttempts - 1)
}
