/** Whether this Node can run FlowStone. An older one fails while it loads the modules. */
const NEEDS = [22, 18] as const

/** What to print; undefined if the version is new enough. */
export function tooOld(version: string): string | undefined {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major > NEEDS[0] || (major === NEEDS[0] && minor >= NEEDS[1])) return undefined
  return `flowstone: needs Node ${NEEDS.join('.')} or later, and this is ${version}; install a newer one`
}
