/**
 * Something that can be read in pieces, such as a file or an object. A reader reads on from any
 * place in it.
 */
export interface ByteSource {
  /** Path or address; its ending says whether it is compressed. */
  readonly name: string
  /** How long it is, and what it is now: another `version` means that it was changed. */
  stat(signal: AbortSignal): Promise<{ readonly size: number; readonly version: string }>
  /**
   * Bytes from `from` up to and without `to`, of that version. Throws when it is another one by
   * now.
   */
  bytes(range: ByteRange, version: string, signal: AbortSignal): AsyncIterable<Uint8Array>
}

/** Bytes from `from`, counted from 0, up to and without `to`. */
export interface ByteRange {
  readonly from: number
  readonly to: number
}
