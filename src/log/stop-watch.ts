/** Ends a watch of a bucket, and its consumer. */

/**
 * The client library leaves the consumer to the server, which keeps it for five minutes. The server
 * has a bound for the consumers of a stream. Nobody waits for the deletion: if it fails, the server
 * forgets the consumer later.
 */
export function stopWatch(watch: { stop(): void }): void {
  watch.stop()
  // The library keeps it there, and has no other way to it.
  const consumer: unknown = Reflect.get(watch, '_data')
  if (isDeletable(consumer)) consumer.delete().catch(() => undefined)
}

interface Deletable {
  delete(): Promise<unknown>
}

function isDeletable(value: unknown): value is Deletable {
  return typeof value === 'object' && value !== null && typeof Reflect.get(value, 'delete') === 'function'
}
