/** `/healthz` and `/readyz` of a worker or an engine, for whoever watches the process. */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { FlowStoneError, InvalidError, messageOf } from '../../streams/errors.ts'
import { boundedServer } from '../http/shared/bounded-server.ts'
import { type HealthAnswer, healthOf, readinessOf, type Watched } from '../http/shared/health.ts'
import type { Output } from './output.ts'

export interface HealthCommand {
  readonly healthPort?: string
  readonly healthHost?: string
}

/** Answers from the start of the process until its end, also while it stops. */
export interface Health extends AsyncDisposable {
  /** From now on it is as ready as its connection is. */
  watch(flow: Watched): void
  /** It has been asked to stop: it takes no more work. */
  stops(): void
}

const NOT_FOUND = 404
const NOTHING: Health = {
  watch: () => undefined,
  stops: () => undefined,
  [Symbol.asyncDispose]: async () => undefined,
}

/** Throws InvalidError for options, `listen_failed` where it cannot listen. */
export async function serveHealth({ healthPort, healthHost }: HealthCommand, output: Output): Promise<Health> {
  if (healthPort === undefined) {
    if (healthHost !== undefined) throw new InvalidError('--health-host needs --health-port')
    return NOTHING
  }
  if (!/^\d{1,5}$/.test(healthPort) || Number(healthPort) > 65_535)
    throw new InvalidError(`--health-port must be 0 (any free one) to 65535, got ${healthPort}`)
  const host = healthHost ?? '127.0.0.1'
  let watched: Watched | undefined
  let isStopping = false
  const ready = async (): Promise<HealthAnswer> => {
    if (isStopping) return { status: 503, text: 'it stops' }
    return watched ? await readinessOf(watched) : { status: 503, text: 'it starts' }
  }
  const answer = async ({ url }: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { status, text } =
      url === '/healthz'
        ? healthOf(watched ?? {})
        : url === '/readyz'
          ? await ready()
          : { status: NOT_FOUND, text: 'there are /healthz and /readyz' }
    response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-store' })
    response.end(`${text}\n`)
  }
  const server = boundedServer({ headersTimeout: 5000, requestTimeout: 5000 }, (request, response) => {
    void answer(request, response)
  })
  server.listen(Number(healthPort), host)
  try {
    await once(server, 'listening')
  } catch (cause) {
    const message = `cannot listen on ${host}:${healthPort} (${messageOf(cause)}); choose another --health-port`
    throw new FlowStoneError('listen_failed', message, { cause })
  }
  // The process ends when its work does.
  server.unref()
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : Number(healthPort)
  const at = `http://${host.includes(':') ? `[${host}]` : host}:${port}`
  output.event('health', { url: at }, `health   ${at}/healthz and ${at}/readyz`)
  return {
    watch: (flow) => {
      watched = flow
    },
    stops: () => {
      isStopping = true
    },
    [Symbol.asyncDispose]: async () => {
      server.close()
      server.closeAllConnections()
    },
  }
}
