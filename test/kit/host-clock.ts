/**
 * Milliseconds by the one monotonic clock that all processes of this host share.
 * `performance.timeOrigin` is no base for that: each process reads it for itself, and on a busy
 * machine some are off by tens of milliseconds.
 */
export const hostMs = (): number => Number(process.hrtime.bigint()) / 1e6
