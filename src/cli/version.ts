import { readFileSync } from 'node:fs'

/** Of this package. */
export function version(): string {
  // From src/cli in the repository, from dist/src/cli in the package.
  for (const up of ['../../package.json', '../../../package.json']) {
    try {
      const manifest: unknown = JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8'))
      if (typeof manifest === 'object' && manifest !== null) return String(Reflect.get(manifest, 'version'))
    } catch {
      // Not there: it is the other one.
    }
  }
  return 'unknown'
}
