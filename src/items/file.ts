/** A local file as a source of bytes. */
import { open, stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { InvalidError, TerminalError } from '../../streams/errors.ts'
import type { ByteSource } from './byte-source.ts'

const BLOCK_BYTES = 128 * 1024

/**
 * A file at a path that is the same on every worker of the asset's queue, for whoever takes the
 * scatter over reads it too. Its size and the time it was last changed tell whether it is still the
 * same.
 */
export function fileSource(path: string | URL): ByteSource {
  const name = path instanceof URL ? fileURLToPath(path) : path
  if (typeof name !== 'string' || name === '') throw new InvalidError('the path of a file must be a text')
  return {
    name,
    stat: async () => {
      const { size, mtimeMs, isFile } = await stat(name).then(
        (found) => ({ size: found.size, mtimeMs: found.mtimeMs, isFile: found.isFile() }),
        (error: unknown) => {
          throw missing(name, error)
        },
      )
      if (!isFile) throw new TerminalError(`${name} is no file`)
      return { size, version: `${size} bytes of ${new Date(mtimeMs).toISOString()}` }
    },
    async *bytes({ from, to }, _version, signal) {
      await using file = await open(name, 'r').catch((error: unknown) => {
        throw missing(name, error)
      })
      for (let at = from; at < to; ) {
        signal.throwIfAborted()
        // A buffer of its own each time: who gets it may keep it.
        const { bytesRead, buffer } = await file.read(
          Buffer.allocUnsafeSlow(Math.min(BLOCK_BYTES, to - at)),
          0,
          undefined,
          at,
        )
        if (bytesRead === 0) return
        at += bytesRead
        yield buffer.subarray(0, bytesRead)
      }
    },
  }
}

/**
 * Another worker may have the file, so this is not the end; but to look again here is of no use.
 */
function missing(name: string, error: unknown): unknown {
  if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) return error
  return new InvalidError(
    `there is no file ${name} on this worker; all workers of the queue must see it at this path`,
    {
      cause: error,
    },
  )
}
