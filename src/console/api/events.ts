/** Server-sent events, read from a stream: `EventSource` of browsers sends no key. */

export interface StreamEvent {
  readonly event: string
  readonly data: unknown
}

/** Puts events together from whatever pieces a stream comes in. */
export class EventParser {
  #text = ''

  push(piece: string): StreamEvent[] {
    this.#text += piece
    const blocks = this.#text.split('\n\n')
    this.#text = blocks.pop() ?? ''
    return blocks.flatMap((block) => eventOf(block) ?? [])
  }
}

/** Undefined for a remark, which only says that the connection lives. */
function eventOf(block: string): StreamEvent | undefined {
  let event = 'message'
  const data: string[] = []
  for (const line of block.split('\n')) {
    const at = line.indexOf(':')
    const [name, value] = at < 0 ? [line, ''] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, '')]
    if (name === 'event') event = value
    else if (name === 'data') data.push(value)
  }
  return data.length === 0 ? undefined : { event, data: JSON.parse(data.join('\n')) }
}

/** Until the stream ends or the caller leaves. Throws when nothing comes for `silentMs`. */
export async function* eventsOf(
  body: ReadableStream<Uint8Array>,
  silentMs: number,
): AsyncGenerator<StreamEvent, void, undefined> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  const parser = new EventParser()
  let timer: ReturnType<typeof setTimeout> | undefined
  try {
    for (;;) {
      const silent = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error('nothing came')), silentMs)
      })
      const { done, value } = await Promise.race([reader.read(), silent])
      clearTimeout(timer)
      if (done) return
      yield* parser.push(decoder.decode(value, { stream: true }))
    }
  } finally {
    clearTimeout(timer)
    await reader.cancel().catch(() => {})
  }
}
