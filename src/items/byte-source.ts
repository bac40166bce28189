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

export interface ByteRange {
  readonly from: number
  readonly to: number
}
