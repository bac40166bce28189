/**
 * Deletes consumers that nobody reads any more. The client library leaves them to the server, which
 * keeps them for five minutes. The server has a bound for the consumers of a stream.
 */

interface Deletable {
  delete(): Promise<unknown>
}

/** Nobody waits for it: if it fails, the server forgets the consumer later. */
export function forgetConsumer(consumer: Deletable): void {
  consumer.delete().catch(() => undefined)
}

/** Ends a watch of a bucket, and its consumer. */
export function stopWatch(watch: { stop(): void }): void {
  watch.stop()
  // The library keeps it there, and has no other way to it.
  const consumer: unknown = Reflect.get(watch, '_data')
  if (isDeletable(consumer)) forgetConsumer(consumer)
}

function isDeletable(value: unknown): value is Deletable {
  return typeof value === 'object' && value !== null && typeof Reflect.get(value, 'delete') === 'function'
}
