import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * A folder of its own that is deleted when it goes out of scope: `using scratch = scratchFolder()`.
 */
export interface ScratchFolder extends Disposable {
  readonly path: string
}

export function scratchFolder(): ScratchFolder {
  const path = mkdtempSync(join(tmpdir(), 'flowstone-test-'))
  return {
    path,
    // Retries: a server that was just killed may still hold a file open on Windows.
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true, maxRetries: 5 }),
  }
}
