/**
 * What runs in the helper thread for a worker (see `helper.ts`), with a connection of its own. It
 * sends signs of life for the tasks of a blocked main thread, and the last words of a dying
 * process.
 *
 * It is passed as text (`Function.toString`), so it needs no file of its own and also runs from a
 * bundle. It uses nothing but its arguments, and speaks the NATS protocol itself.
 */
import type * as fs from 'node:fs'
import type * as net from 'node:net'
import type * as tls from 'node:tls'
import type { MessagePort } from 'node:worker_threads'

export interface HelperData {
  readonly memory: SharedArrayBuffer
  readonly slots: number
  readonly slotBytes: number
  readonly servers: readonly string[]
  readonly tls: Readonly<Record<string, unknown>> | undefined
  readonly worker: string
  /** Subjects of questions about who has which tasks. */
  readonly questions: readonly string[]
  readonly inbox: string
  readonly ackWaitMs: number
  /** A main thread that is blocked for longer than this is given up: no more signs of life. */
  readonly maxBlockedMs: number
  /** The process is FlowStone's own: what is given up is ended. */
  readonly owned: boolean
}

/**
 * Words of a process that ends. `facts` are stored in this order; then what they settle is
 * acknowledged, and the rest is handed back.
 */
export interface LastWords {
  readonly facts: readonly {
    readonly subject: string
    readonly headers: string
    readonly payload: Uint8Array
    readonly task: number
  }[]
  /** Where each task is answered; -1 facts: it is handed back. */
  readonly replies: readonly { readonly reply: string; readonly facts: number }[]
  /** Deletes the worker's name. */
  readonly farewell: { readonly subject: string; readonly headers: string } | undefined
  readonly withinMs: number
}

export type ToHelper =
  | { readonly auth: Readonly<Record<string, unknown>> }
  | { readonly last: LastWords }
  | { readonly server: string }
export type FromHelper = { readonly nonce: string } | { readonly connected: true } | { readonly failed: string }

/**
 * Layout of the shared memory: when the main thread was last seen (ms), state of the last words,
 * the slot whose code was called last, lengths and texts of slots.
 */
export const CLOCK = 0
export const STATE = 0
export const CURRENT = 1
export const HEAD_BYTES = 32

/**
 * It is long on purpose. A thread gets the text of this one function, so whatever it calls is
 * declared in it. The text of a class or of another function would come from a bundler under a name
 * that this text does not know.
 */
export function helperMain(given: {
  port: MessagePort
  data: HelperData
  net: typeof net
  /** Loads it, where the server is reached by TLS: that takes some 12 ms. */
  tls: () => typeof tls
  fs: typeof fs
}): void {
  const { port, data } = given
  const { memory, slots, slotBytes, ackWaitMs, maxBlockedMs } = data
  const clock = new Float64Array(memory, 0, 1)
  const state = new Int32Array(memory, 8, 2)
  const lengths = new Int32Array(memory, 32, slots)
  const texts = new Uint8Array(memory, 32 + 4 * slots)
  const LOOK_MS = 100
  const BLOCKED_MS = 1000
  const SAY_MS = 3000
  const RETRY_MIN_MS = 500
  const RETRY_MAX_MS = 10_000
  let retryMs = RETRY_MIN_MS
  /** The worker has stopped. */
  let isOver = false
  /** Where is written to: with TLS, not the one that was opened. */
  let socket: net.Socket | undefined
  let ready = false
  let buffer = Buffer.alloc(0)
  let auth: Record<string, unknown> = {}
  let onAuth: (() => void) | undefined
  let servers = [...data.servers]
  let at = 0
  let ending: { words: LastWords; left: Set<number>; failed: Set<number>; finish: () => void } | undefined
  let onPong: (() => void) | undefined

  const send = (text: string, payload?: Uint8Array): void => {
    if (!socket || socket.destroyed) return
    socket.write(payload ? Buffer.concat([Buffer.from(text), payload, Buffer.from('\r\n')]) : text)
  }
  const publish = (subject: string, payload: string): void =>
    send(`PUB ${subject} ${Buffer.byteLength(payload)}\r\n${payload}\r\n`)

  const taken = (): { reply: string; label: string }[] => {
    const found: { reply: string; label: string }[] = []
    for (let slot = 0; slot < slots; slot++) {
      const length = Atomics.load(lengths, slot)
      if (length === 0) continue
      const start = slot * slotBytes
      const [reply = '', label = ''] = Buffer.from(texts.slice(start, start + length))
        .toString('utf8')
        .split('\n')
      found.push({ reply, label })
    }
    return found
  }
  /** `<shard>.<sequence>`, as questions name a task, of the address of its acknowledgement. */
  const nameOf = (reply: string): string => {
    const tokens = reply.split('.')
    const from = tokens.length === 9 ? 2 : 4
    return `${(tokens[from] ?? '').split('_').at(-1)}.${tokens[from + 3]}`
  }

  const reconnectLater = (): void => {
    ready = false
    socket = undefined
    setTimeout(connect, retryMs)
    retryMs = Math.min(RETRY_MAX_MS, retryMs * 2)
  }
  const connect = (): void => {
    if (isOver) return
    let address: URL
    try {
      address = new URL((servers[at++ % servers.length] ?? '').replace(/^(?!\w+:\/\/)/, 'nats://'))
    } catch {
      reconnectLater()
      return
    }
    const host = address.hostname.replace(/^\[|\]$/g, '')
    const raw = given.net.connect({ host, port: Number(address.port || 4222) })
    /** A file of TLS may be away, or a server say what cannot be read: it connects anew. */
    const guarded = (work: () => void): void => {
      try {
        work()
      } catch {
        raw.destroy()
      }
    }
    socket = raw
    ready = false
    buffer = Buffer.alloc(0)
    let greeted = false
    const listen = (stream: net.Socket): void => {
      stream.on('data', (chunk: Buffer) => {
        buffer = Buffer.concat([buffer, chunk])
        guarded(() => read(stream))
      })
    }
    raw.setNoDelay(true)
    raw.on('error', () => undefined)
    raw.once('close', reconnectLater)
    const read = (stream: net.Socket): void => {
      for (;;) {
        const end = buffer.indexOf('\r\n')
        if (end < 0) return
        const line = buffer.subarray(0, end).toString('utf8')
        const [verb = '', ...rest] = line.split(/\s+/)
        if (verb.toUpperCase() === 'MSG' || verb.toUpperCase() === 'HMSG') {
          const size = Number(rest.at(-1))
          if (buffer.length < end + 2 + size + 2) return
          const body = buffer.subarray(end + 2, end + 2 + size)
          const head = verb.toUpperCase() === 'HMSG' ? Number(rest.at(-2)) : 0
          const sizes = verb.toUpperCase() === 'HMSG' ? 2 : 1
          const reply = rest.length - sizes > 2 ? rest[2] : undefined
          receive(rest[0] ?? '', reply, body.subarray(head))
          buffer = buffer.subarray(end + 2 + size + 2)
          continue
        }
        buffer = buffer.subarray(end + 2)
        if (verb === 'PING') send('PONG\r\n')
        else if (verb === 'PONG') {
          if (!ready) {
            ready = true
            retryMs = RETRY_MIN_MS
            port.postMessage({ connected: true })
          }
          onPong?.()
        } // What it may not read or write is missing, and the rest of its work is done.
        else if (verb === '-ERR') {
          if (!line.includes('Permissions Violation')) stream.destroy()
        } else if (verb === 'INFO' && !greeted) {
          greeted = true
          hello(stream, JSON.parse(line.slice(5)))
        }
      }
    }
    const encrypt = (next: () => void): void => {
      const file = (key: string): Buffer | undefined => {
        const path = data.tls?.[key]
        return typeof path === 'string' ? given.fs.readFileSync(path) : undefined
      }
      raw.removeAllListeners('data')
      const [ca, cert, key] = [file('caFile'), file('certFile'), file('keyFile')]
      const options = { ...data.tls, ...(ca ? { ca } : {}), ...(cert ? { cert } : {}), ...(key ? { key } : {}) }
      const servername = given.net.isIP(host) ? '' : host
      const over = given.tls().connect({ socket: raw, servername, ...options }, next)
      over.on('error', () => raw.destroy())
      socket = over
      listen(over)
    }
    const hello = (stream: net.Socket, info: Record<string, unknown>): void => {
      const login = (): void => {
        const options = {
          verbose: false,
          pedantic: false,
          headers: true,
          no_responders: true,
          protocol: 1,
          lang: 'node',
          version: '0.1',
          name: `${data.worker} helper`,
          ...auth,
        }
        send(`CONNECT ${JSON.stringify(options)}\r\n`)
        for (const [i, subject] of data.questions.entries()) send(`SUB ${subject} ${i + 1}\r\n`)
        send(`SUB ${data.inbox}.* 1000\r\nPING\r\n`)
      }
      // The main thread signs: it may know how by a function of the user's. While it is blocked,
      // what it said last is tried.
      const timer = setTimeout(() => onAuth?.(), 1000)
      onAuth = () => {
        onAuth = undefined
        clearTimeout(timer)
        guarded(() => {
          if (stream === raw && (info.tls_required || data.tls)) encrypt(login)
          else login()
        })
      }
      port.postMessage({ nonce: typeof info.nonce === 'string' ? info.nonce : '' })
    }
    if (data.tls?.handshakeFirst) raw.once('connect', () => guarded(() => encrypt(() => undefined)))
    else listen(raw)
  }

  /** The tasks that a question names; none of what is no question: anybody may send that. */
  const askedBy = (body: Buffer): string[] => {
    try {
      const { messages } = Object(JSON.parse(body.toString('utf8')))
      return Array.isArray(messages) ? messages : []
    } catch {
      return []
    }
  }
  const receive = (subject: string, reply: string | undefined, body: Buffer): void => {
    if (subject.startsWith(`${data.inbox}.`)) {
      settle(Number(subject.slice(data.inbox.length + 1)), body.toString('utf8'))
      return
    }
    if (reply === undefined) return
    const seen = clock[0] ?? 0
    // The main thread answers by itself. Blocked, it does not move its clock.
    setTimeout(() => {
      if ((clock[0] ?? 0) !== seen || isGivenUp()) return
      const mine = new Set(taken().map((one) => nameOf(one.reply)))
      const holds = askedBy(body).filter((one) => mine.has(one))
      publish(reply, JSON.stringify({ worker: data.worker, holds, ended: [] }))
    }, 300)
  }

  /** The answer to a fact of the last words. One that somebody else has written is as good. */
  const settle = (i: number, text: string): void => {
    if (!ending) return
    ending.left.delete(i)
    if (text.includes('"error"') && !text.includes('10071')) ending.failed.add(i)
    if (ending.left.size === 0) ending.finish()
  }

  const lastWords = (words: LastWords): void => {
    const left = new Set(words.facts.keys())
    const failed = new Set<number>()
    const done = (): void => {
      Atomics.store(state, 0, 2)
      Atomics.notify(state, 0)
    }
    const finish = (): void => {
      clearTimeout(timer)
      if (words.farewell && left.size === 0 && failed.size === 0)
        send(
          `HPUB ${words.farewell.subject} ${Buffer.byteLength(words.farewell.headers)} ${Buffer.byteLength(words.farewell.headers)}\r\n${words.farewell.headers}\r\n`,
        )
      for (const [task, { reply, facts }] of words.replies.entries()) {
        const own = [...words.facts.entries()].filter(([, fact]) => fact.task === task).map(([i]) => i)
        if (facts === 0) publish(reply, '-NAK')
        else if (own.every((i) => !left.has(i) && !failed.has(i))) publish(reply, '+ACK')
      }
      onPong = done
      send('PING\r\n')
    }
    const timer = setTimeout(finish, words.withinMs)
    ending = { words, left, failed, finish }
    for (const [i, { subject, headers, payload }] of words.facts.entries()) {
      const head = Buffer.byteLength(headers)
      send(`HPUB ${subject} ${data.inbox}.${i} ${head} ${head + payload.length}\r\n${headers}`, payload)
    }
    if (left.size === 0) finish()
  }

  // The same for all threads of a machine, and nobody sets it.
  const monotonicMs = (): number => Number(process.hrtime.bigint() / 1_000_000n)
  let lookedMs = monotonicMs()
  let heartMs = 0
  let said = 0
  const stillMs = (): number => monotonicMs() - (clock[0] ?? 0)
  const isGivenUp = (): boolean => stillMs() > maxBlockedMs
  const say = (text: string): void => {
    // Not by console: that would wait for the main thread.
    try {
      given.fs.writeSync(2, `flowstone: ${text}\n`)
    } catch {
      // Nobody reads.
    }
  }
  const looking = setInterval(() => {
    const nowMs = monotonicMs()
    const stood = nowMs - lookedMs
    lookedMs = nowMs
    // The whole process stood (or its machine slept): the main thread gets time to be seen first.
    if (stood > BLOCKED_MS / 2) return
    const blockedMs = stillMs()
    if (blockedMs < BLOCKED_MS) {
      said = 0
      return
    }
    if (Atomics.load(state, 0) !== 0) return
    const held = taken()
    if (blockedMs >= SAY_MS * 4 ** said) {
      said += 1
      const current = Atomics.load(state, 1)
      const sure = current >= 0 && Atomics.load(lengths, current) > 0
      const start = current * slotBytes
      const label = sure
        ? Buffer.from(texts.slice(start, start + Atomics.load(lengths, current)))
            .toString('utf8')
            .split('\n')[1]
        : undefined
      const who =
        label ??
        (held.length === 0
          ? 'code that belongs to no task'
          : `one of ${[...new Set(held.map((one) => one.label))].slice(0, 5).join(', ')}`)
      say(
        `the event loop of ${data.worker} is blocked for ${(blockedMs / 1000).toFixed(1)} s by ${who}; its tasks are kept for ${maxBlockedMs / 1000} s at the most`,
      )
    }
    if (isGivenUp()) {
      if (!data.owned) return
      say(`${data.worker} is given up: its event loop is blocked for ${(blockedMs / 1000).toFixed(1)} s`)
      for (const { reply } of held) publish(reply, '-NAK')
      onPong = () => process.kill(process.pid, 'SIGKILL')
      setTimeout(() => process.kill(process.pid, 'SIGKILL'), 500)
      send('PING\r\n')
      return
    }
    if (nowMs - heartMs < ackWaitMs / 4) return
    heartMs = nowMs
    if (ready) for (const { reply } of held) publish(reply, '+WPI')
  }, LOOK_MS)

  port.on('message', (message: ToHelper) => {
    if ('auth' in message) {
      auth = { ...message.auth }
      onAuth?.()
    } else if ('server' in message) servers = [message.server, ...data.servers]
    else lastWords(message.last)
  })
  port.once('close', () => {
    isOver = true
    clearInterval(looking)
    socket?.destroy()
  })
  connect()
}
