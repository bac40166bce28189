import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { get as httpGet, type IncomingMessage } from 'node:http'
import { get as httpsGet } from 'node:https'
import { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

/**
 * Short, because behind a firewall that drops packets every one of these seconds is waited for
 * nothing.
 */
const CONNECT_TIMEOUT_MS = 3_000
/** How long an open connection may say nothing. */
const IDLE_TIMEOUT_MS = 30_000
const MAX_REDIRECTS = 5

/**
 * Fetches a file to `target` and returns its SHA-256 in hex. Errors name the address and the
 * reason.
 */
export async function downloadFile(url: string, target: string): Promise<string> {
  const hash = createHash('sha256')
  const response = await open(url)
  await pipeline(
    response,
    async function* (source: AsyncIterable<Buffer>) {
      for await (const chunk of source) {
        hash.update(chunk)
        yield chunk
      }
    },
    createWriteStream(target),
  )
  return hash.digest('hex')
}

/** Fetches a small text (at most 1 MiB). */
export async function downloadText(url: string): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  const response = await open(url)
  await pipeline(
    response,
    new Writable({
      write(chunk: Buffer, _encoding, callback) {
        size += chunk.length
        chunks.push(chunk)
        callback(size > 1024 * 1024 ? new Error(`${url} is larger than 1 MiB`) : null)
      },
    }),
  )
  return Buffer.concat(chunks).toString('utf8')
}

async function open(url: string): Promise<IncomingMessage> {
  let address = new URL(url)
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    const response = await request(address)
    const status = response.statusCode ?? 0
    if (status === 200) return response
    response.resume() // Frees the connection.
    if (status < 300 || status >= 400 || !response.headers.location) throw new Error(`${address.href}: HTTP ${status}`)
    const next = new URL(response.headers.location, address)
    // A redirect must not take the protection away that the first address had.
    if (address.protocol === 'https:' && next.protocol !== 'https:') {
      throw new Error(`${address.href} redirects to ${next.href}, which is not https`)
    }
    address = next
  }
  throw new Error(`${url}: more than ${MAX_REDIRECTS} redirects`)
}

/** Node's http client and not `fetch`: fetch has no connect time-out that can be set. */
function request(address: URL): Promise<IncomingMessage> {
  const get = address.protocol === 'https:' ? httpsGet : httpGet
  return new Promise((resolve, reject) => {
    const request = get(address, { headers: { 'user-agent': 'flowstone' } })
    const fail = (error: Error) =>
      reject(new Error(`${address.host}: ${error.message || error.name}`, { cause: error }))
    const connecting = setTimeout(
      () => request.destroy(new Error(`no connection within ${CONNECT_TIMEOUT_MS / 1000} s`)),
      CONNECT_TIMEOUT_MS,
    )
    const connected = () => clearTimeout(connecting)
    request.on('socket', (socket) => {
      if (socket.connecting) socket.once(address.protocol === 'https:' ? 'secureConnect' : 'connect', connected)
      else connected()
    })
    request.setTimeout(IDLE_TIMEOUT_MS, () =>
      request.destroy(new Error(`nothing received for ${IDLE_TIMEOUT_MS / 1000} s`)),
    )
    request.once('response', (response) => {
      connected()
      resolve(response)
    })
    request.once('error', (error) => {
      connected()
      fail(error)
    })
  })
}
