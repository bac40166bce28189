/**
 * Whether two times are of one message. Earlier versions read some of them a millisecond late: they
 * took the library's number of nanoseconds, which has no place for the last digits.
 */
export function isSameStoredMs(a: number, b: number): boolean {
  return Math.abs(a - b) <= 1
}
