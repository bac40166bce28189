/** Reading on from cursors: what every reader must get right, whatever it reads. */
import { expect } from 'vitest'
import type { ItemReader } from '../../src/items/index.ts'

export const never: AbortSignal = new AbortController().signal

/** A cursor that went to the log and came back. */
function stored(cursor: unknown): unknown {
  return JSON.parse(JSON.stringify(cursor))
}

export async function readAll<T>(reader: ItemReader<T>, cursor?: unknown): Promise<T[]> {
  const items: T[] = []
  for await (const chunk of reader.read(cursor, never)) items.push(...chunk.items)
  return items
}

/**
 * Every cursor that a reader gives, behind a chunk and within one, with the number of items before
 * it.
 */
export async function cursorsOf<T>(reader: ItemReader<T>): Promise<[cursor: unknown, before: number][]> {
  const found: [unknown, number][] = []
  let before = 0
  for await (const { items, cursor, cursorAt } of reader.read(undefined, never)) {
    if (cursorAt) for (const i of items.keys()) found.push([stored(cursorAt(i)), before + i + 1])
    before += items.length
    found.push([stored(cursor), before])
  }
  return found
}

/** From each of its cursors, the reader gives what is left, and nothing else. */
export async function expectReadsOn<T>(reader: ItemReader<T>): Promise<T[]> {
  const all = await readAll(reader)
  for (const [cursor, before] of await cursorsOf(reader))
    expect(await readAll(reader, cursor), `behind ${before} items`).toEqual(all.slice(before))
  return all
}
