/**
 * A small server that speaks as much of S3 as readers and archives need: ListObjectsV2 with
 * StartAfter, HeadObject, GetObject with Range and If-Match, PutObject, uploads of several parts.
 * The client is the real one of the AWS SDK.
 */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { S3Client } from '@aws-sdk/client-s3'

export interface S3Server extends AsyncDisposable {
  readonly url: string
  readonly client: S3Client
  readonly objects: Map<string, Uint8Array>
  /** Uploads that were begun and neither completed nor given up. */
  readonly uploads: Map<string, Map<number, Uint8Array>>
  /** What was asked for: `list after=…`, `head key`, `get key bytes=…`, `put key`, `part 1 key`. */
  readonly asked: string[]
  /** Called with what was asked for, before it is answered. */
  hold: (asked: string) => Promise<void> | void
  /** Answers so many of the next requests with 503, which the SDK itself does not retry here. */
  failNext: number
  /** Ends so many of the next bodies in the middle. */
  tearNext: number
}

const PAGE = 1000

export async function startS3(bucket: string): Promise<S3Server> {
  const objects = new Map<string, Uint8Array>()
  const uploads = new Map<string, Map<number, Uint8Array>>()
  const asked: string[] = []
  const state: Pick<S3Server, 'failNext' | 'tearNext' | 'hold'> = { failNext: 0, tearNext: 0, hold: () => undefined }
  const server = createServer((request, response) => void answer(request, response))

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://local')
    const [, name, ...rest] = url.pathname.split('/').map(decodeURIComponent)
    const key = rest.join('/')
    if (state.failNext > 0) {
      state.failNext -= 1
      refuse(response, 503, 'SlowDown')
    } else if (name !== bucket) refuse(response, 404, 'NoSuchBucket')
    else if (url.searchParams.get('list-type') === '2') {
      const { prefix = '', 'start-after': after = '' } = Object.fromEntries(url.searchParams)
      const line = `list after=${after}`
      asked.push(line)
      await state.hold(line)
      const keys = [...objects.keys()].filter((one) => one.startsWith(prefix) && one > after).toSorted()
      const page = keys.slice(0, PAGE)
      const contents = page
        .map(
          (one) =>
            `<Contents><Key>${one}</Key><Size>${objects.get(one)?.length}</Size><ETag>${etag(objects.get(one))}</ETag></Contents>`,
        )
        .join('')
      response.setHeader('Content-Type', 'application/xml')
      response.end(
        `<?xml version="1.0"?><ListBucketResult><IsTruncated>${keys.length > PAGE}</IsTruncated>${contents}</ListBucketResult>`,
      )
    } else if (request.method !== 'GET' && request.method !== 'HEAD') await takeObject(request, url, key, response)
    else sendObject(request.method ?? 'GET', key, request.headers, response)
  }

  function sendObject(method: string, key: string, headers: NodeJS.Dict<string | string[]>, response: ServerResponse) {
    const body = objects.get(key)
    const { range, 'if-match': match } = headers
    asked.push(method === 'HEAD' ? `head ${key}` : `get ${key} ${range}`)
    if (!body) return refuse(response, 404, 'NoSuchKey')
    if (match !== undefined && match !== etag(body)) return refuse(response, 412, 'PreconditionFailed')
    const [from = 0, to = body.length - 1] = /^bytes=(\d+)-(\d+)$/.exec(String(range))?.slice(1).map(Number) ?? []
    if (range !== undefined && from >= body.length) return refuse(response, 416, 'InvalidRange')
    const part = body.subarray(from, to + 1)
    response.writeHead(range === undefined ? 200 : 206, { ETag: etag(body), 'Content-Length': part.length })
    if (method === 'HEAD') response.end()
    else if (state.tearNext > 0) {
      state.tearNext -= 1
      response.write(part.subarray(0, part.length / 2), () => response.destroy())
    } else response.end(part)
  }

  async function takeObject(request: IncomingMessage, url: URL, key: string, response: ServerResponse) {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const body = new Uint8Array(Buffer.concat(chunks))
    const id = url.searchParams.get('uploadId')
    const part = url.searchParams.get('partNumber')
    const line = part === null ? `${request.method?.toLowerCase()} ${key}` : `part ${part} ${key}`
    asked.push(line)
    await state.hold(line)
    if (url.searchParams.has('uploads')) {
      const made = `upload-${uploads.size + 1}`
      uploads.set(made, new Map())
      response.end(`<InitiateMultipartUploadResult><UploadId>${made}</UploadId></InitiateMultipartUploadResult>`)
      return
    }
    const upload = id === null ? undefined : uploads.get(id)
    if (id !== null && !upload) return refuse(response, 404, 'NoSuchUpload')
    if (!upload) objects.set(key, body)
    else if (part !== null) upload.set(Number(part), body)
    else {
      uploads.delete(id ?? '')
      const parts = [...upload].toSorted(([a], [b]) => a - b).map(([, bytes]) => bytes)
      if (request.method === 'POST') objects.set(key, new Uint8Array(Buffer.concat(parts)))
    }
    response.setHeader('ETag', etag(body))
    response.end(
      request.method === 'POST'
        ? `<CompleteMultipartUploadResult><Key>${key}</Key></CompleteMultipartUploadResult>`
        : undefined,
    )
  }

  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  const url = `http://127.0.0.1:${address.port}`
  const client = new S3Client({
    endpoint: url,
    region: 'us-east-1',
    forcePathStyle: true,
    maxAttempts: 1,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  })
  return Object.assign(state, {
    url,
    client,
    objects,
    uploads,
    asked,
    [Symbol.asyncDispose]: async () => {
      client.destroy()
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    },
  })
}

function etag(body: Uint8Array | undefined): string {
  return `"${createHash('md5')
    .update(body ?? '')
    .digest('hex')}"`
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'Content-Type': 'application/xml' })
  response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`)
}
