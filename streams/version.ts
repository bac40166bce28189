/**
 * Versions of nats-server: which one is needed, and how two compare.
 */

/** The oldest nats-server that has all that is used: repeating message schedules came with 2.14. */
export const MIN_SERVER_VERSION = '2.14.0'

/**
 * Negative when `a` is older than `b`, positive when newer, 0 when the same. Takes `2.15.1`,
 * `v2.15.1`, `2.15.1-RC.1`. A pre-release is older than its release, as semver has it; build
 * metadata (`+…`) does not count. What is no version at all is older than every version.
 */
export function compareVersions(a: string, b: string): number {
  const left = parse(a)
  const right = parse(b)
  for (let i = 0; i < 3; i++) {
    const difference = (left.numbers[i] ?? 0) - (right.numbers[i] ?? 0)
    if (difference !== 0) return difference
  }
  return comparePreReleases(left.preRelease, right.preRelease)
}

function parse(version: string): { numbers: number[]; preRelease: string[] } {
  const match = /^v?(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+.*)?$/.exec(version.trim())
  if (!match) return { numbers: [-1, -1, -1], preRelease: [] }
  return { numbers: [Number(match[1]), Number(match[2]), Number(match[3])], preRelease: match[4]?.split('.') ?? [] }
}

function comparePreReleases(a: string[], b: string[]): number {
  if (a.length === 0 || b.length === 0) return b.length - a.length
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const left = a[i]
    const right = b[i]
    if (left === undefined) return -1
    if (right === undefined) return 1
    if (left === right) continue
    const leftIsNumber = /^\d+$/.test(left)
    const rightIsNumber = /^\d+$/.test(right)
    if (leftIsNumber && rightIsNumber) return Number(left) - Number(right)
    if (leftIsNumber !== rightIsNumber) return leftIsNumber ? -1 : 1
    return left < right ? -1 : 1
  }
  return 0
}
