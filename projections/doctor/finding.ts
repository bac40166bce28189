/** What `flow.doctor` says. Findings are made by pure functions of what was read. */

/**
 * `error`: something does not work, or will lose work. `warn`: look at it soon. `unseen`: could not
 * be looked at, and `says` why.
 */
export type FindingLevel = 'ok' | 'warn' | 'error' | 'unseen'

/** One thing that the doctor looked at. */
export interface Finding {
  readonly level: FindingLevel
  /** What was looked at: `server.version`, `engine.active`. */
  readonly check: string
  /** Of which shard, stream, queue or run; none: of the whole. */
  readonly about?: string
  readonly says: string
  /** What to do. Of all that is not `ok`. */
  readonly advice?: string
}

/** What was read, or why it could not be. */
export type Look<T> = { readonly value: T } | { readonly unseen: string }

/** Findings of what was seen; one that says so where it was not. */
export function ofLook<T>(
  at: Pick<Finding, 'check' | 'about'>,
  look: Look<T>,
  find: (value: T) => readonly Finding[],
): readonly Finding[] {
  if ('value' in look) return find(look.value)
  const advice = /ermission|denied/.test(look.unseen)
    ? 'ask with the NATS role operator (docs/permissions.md), or give this user that permission'
    : 'look again; if it stays, ask with another user or nearer to the server'
  return [{ level: 'unseen', ...at, says: `could not be seen: ${look.unseen}`, advice }]
}

export const ok = (check: string, says: string, about?: string): Finding => made('ok', { check, about }, says)
export const warn = (check: string, says: string, advice: string, about?: string): Finding =>
  made('warn', { check, about }, says, advice)
export const bad = (check: string, says: string, advice: string, about?: string): Finding =>
  made('error', { check, about }, says, advice)

function made(
  level: FindingLevel,
  { check, about }: { readonly check: string; readonly about: string | undefined },
  says: string,
  advice?: string,
): Finding {
  return {
    level,
    check,
    ...(about === undefined ? {} : { about }),
    says,
    ...(advice === undefined ? {} : { advice }),
  }
}

const RANK: Readonly<Record<FindingLevel, number>> = { error: 0, warn: 1, unseen: 2, ok: 3 }

/** The worst first; among equals, in the order in which they were found. */
export function worstFirst(findings: readonly Finding[]): Finding[] {
  return findings.toSorted((a, b) => RANK[a.level] - RANK[b.level])
}

/** Such as `3 h`, to read. */
export function ageText(ms: number): string {
  const units = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['min', 60_000],
    ['s', 1000],
  ] as const
  const [unit, size] = units.find(([, size]) => ms >= 2 * size) ?? ['s', 1000]
  return `${Math.round(ms / size)} ${unit}`
}

export function bytesText(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB']
  let [value, unit] = [bytes, 0]
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}
