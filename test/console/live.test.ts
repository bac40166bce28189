import { expect, it } from 'vitest'
import { EventParser, eventsOf } from '../../src/console/api/events.ts'
import { isFor, Live, type LiveState, queryOf } from '../../src/console/api/live.ts'
import { until } from '../kit/until.ts'

const encoder = new TextEncoder()
const event = (name: string, data: unknown): string => `id: 1\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}

it('events are put together from pieces of any size, and remarks are none', () => {
  const text = `: \n\n${event('gates', { waiting: 2, text: 'ö\\n' })}${event('run', { run: { id: 'a' } })}`
  for (const size of [1, 3, 7, text.length]) {
    const parser = new EventParser()
    const pieces = Array.from({ length: Math.ceil(text.length / size) }, (_, i) => text.slice(i * size, (i + 1) * size))
    expect(pieces.flatMap((piece) => parser.push(piece))).toEqual([
      { event: 'gates', data: { waiting: 2, text: 'ö\\n' } },
      { event: 'run', data: { run: { id: 'a' } } },
    ])
  }
})

it('a character that is cut in two by the network is whole again', async () => {
  const bytes = encoder.encode(event('gates', { text: 'Größe 🎉' }))
  const stream = new ReadableStream<Uint8Array>({
    start(control) {
      for (const byte of bytes) control.enqueue(Uint8Array.of(byte))
      control.close()
    },
  })
  expect(await all(eventsOf(stream, 1000))).toEqual([{ event: 'gates', data: { text: 'Größe 🎉' } }])
})

it('a stream that says nothing for long is given up', async () => {
  const silent = new ReadableStream<Uint8Array>()
  await expect(all(eventsOf(silent, 5))).rejects.toThrow('nothing came')
})

it('one connection has all that anybody wants, and each hears of his own only', () => {
  expect(queryOf([{ run: ['b'] }, { runs: true }, { run: ['a', 'b'], gates: true }])).toEqual({
    runs: true,
    gates: true,
    run: ['a', 'b'],
  })
  expect(queryOf([{}])).toBeUndefined()
  expect(isFor({ run: ['a'] }, { event: 'run', data: { run: { id: 'a' } } })).toBe(true)
  expect(isFor({ run: ['a'] }, { event: 'run', data: { run: { id: 'b' } } })).toBe(false)
  expect(isFor({ scatter: ['a.x'] }, { event: 'ranges', data: { id: 'a.x' } })).toBe(true)
  expect(isFor({ scatter: ['a.x'] }, { event: 'runs', data: {} })).toBe(false)
  expect(queryOf([{ facts: true }])).toEqual({ facts: true })
  expect([{ facts: true }, { runs: true }].map((of) => isFor(of, { event: 'facts', data: {} }))).toEqual([true, false])
})

/** Connections that a test opens, feeds and breaks. */
class Wire {
  readonly opened: unknown[] = []
  readonly states: LiveState[] = []
  control: ReadableStreamDefaultController<Uint8Array> | undefined
  isAway = false
  readonly live = new Live({
    againMs: 1,
    settleMs: 1,
    onState: (state) => this.states.push(state),
    open: async (query, signal) => {
      this.opened.push(query)
      if (this.isAway) throw new Error('away')
      return new ReadableStream<Uint8Array>({
        start: (control) => {
          this.control = control
          signal.addEventListener('abort', () => control.error(new Error('left')))
        },
      })
    },
  })
}

it('after a break the connection comes back by itself, and says so', async () => {
  const wire = new Wire()
  const heard: unknown[] = []
  const stop = wire.live.listen({ gates: true }, ({ data }) => heard.push(data))
  wire.live.want(true)
  await until('it is open', () => wire.states.includes('live'))
  wire.control?.enqueue(encoder.encode(event('gates', 1)))
  await until('it was heard', () => heard.length === 1)
  wire.isAway = true
  wire.control?.close()
  await until('it was tried again', () => wire.opened.length > 2)
  expect(wire.states.at(-1)).toBe('away')
  wire.isAway = false
  await until('it is open again', () => wire.states.at(-1) === 'live')
  wire.control?.enqueue(encoder.encode(event('gates', 2)))
  await until('it was heard', () => heard.length === 2)
  stop()
  await until('nobody listens', () => wire.states.at(-1) === 'off')
})

it('nothing is open in the past or in a tab that is hidden, and another topic opens it anew', async () => {
  const wire = new Wire()
  wire.live.listen({ gates: true }, () => {})
  wire.live.want(true)
  await until('it is open', () => wire.opened.length === 1)
  wire.live.listen({ run: ['a'] }, () => {})
  await until('it is open anew', () => wire.opened.length === 2)
  expect(wire.opened[1]).toEqual({ gates: true, run: ['a'] })
  wire.live.want(false)
  await until('it is closed', () => wire.states.at(-1) === 'off')
  wire.live.listen({ runs: true }, () => {})
  wire.live.want(true)
  await until('it is open with all of them', () => wire.opened.length === 3)
  expect(wire.opened[2]).toEqual({ gates: true, run: ['a'], runs: true })
})
