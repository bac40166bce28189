/**
 * All that an async iterable gives. (`Array.fromAsync` is not in the library types that the project
 * compiles with.)
 */
export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = []
  for await (const item of source) list.push(item)
  return list
}
