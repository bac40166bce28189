export const LEASE_SIZE_MAX = 1000

export function leaseId(from: number, to: number, ordinal: number): string {
  return `${from}-${to}-${ordinal}`
}

export function parseLeaseId(id: string): { from: number; to: number; ordinal: number } | undefined {
  const match = /^(\d{1,15})-(\d{1,15})-(\d{1,9})$/.exec(id)
  const [from = 0, to = 0, ordinal = 0] = match?.slice(1).map(Number) ?? []
  // Wider ones are never cut, and would reach beyond the segments that needs() loads.
  return to > from && to - from <= LEASE_SIZE_MAX && ordinal >= 1 ? { from, to, ordinal } : undefined
}
