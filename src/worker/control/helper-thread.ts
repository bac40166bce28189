/**
 * The thread that the workers of a process share. To start one takes Node some 60 ms of a
 * processor, and some 14 MB of memory.
 */
import { MessageChannel, type MessagePort, Worker as Thread } from 'node:worker_threads'
import { type HelperData, helperMain } from './helper-code.ts'

/** The thread ends so long after its last worker has stopped, unless another one has started. */
const LINGER_MS = 5000

interface Shared {
  readonly thread: Thread
  /** Called when the thread ends by an error. */
  readonly users: Set<(error: unknown) => void>
}

/** A worker's part in the thread. */
export interface HelperPart {
  /** To its part, and from it. */
  readonly port: MessagePort
  /** Its connection is closed, and it says nothing more. */
  close(): void
}

let shared: Shared | undefined

/**
 * Begins what `data` says, in the thread that is there, or in a new one. `onError`: the thread has
 * ended, and with it this part. Throws where threads may not be started.
 */
export function joinThread(data: HelperData, onError: (error: unknown) => void): HelperPart {
  shared ??= start()
  const joined = shared
  const { port1, port2 } = new MessageChannel()
  joined.users.add(onError)
  const close = (): void => {
    port1.close()
    if (joined.users.delete(onError) && joined.users.size === 0) linger(joined)
  }
  try {
    joined.thread.postMessage({ data, port: port2 }, [port2])
  } catch (error) {
    // What cannot be handed to a thread, such as some settings of TLS.
    close()
    throw error
  }
  return { port: port1, close }
}

function linger(left: Shared): void {
  const timer = setTimeout(() => {
    if (left.users.size > 0) return
    if (shared === left) shared = undefined
    void left.thread.terminate()
  }, LINGER_MS)
  timer.unref()
}

function start(): Shared {
  const thread = new Thread(SOURCE, {
    eval: true,
    name: 'flowstone helper',
    stdout: false,
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4, stackSizeMb: 2 },
  })
  thread.unref()
  const made: Shared = { thread, users: new Set() }
  thread.on('error', (error: unknown) => {
    if (shared === made) shared = undefined
    for (const onError of made.users) onError(error)
  })
  return made
}

/** Bundlers may name functions by a helper of theirs, which is not there. */
const SOURCE = `const __name = (target) => target
const { parentPort } = require('node:worker_threads')
const main = ${helperMain.toString()}
parentPort.on('message', ({ port, data }) =>
  main({ port, data, net: require('node:net'), tls: () => require('node:tls'), fs: require('node:fs') }))`
