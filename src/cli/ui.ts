/** `flowstone ui`: shows the console. That of the `flowstone dev` of this folder, else its own. */
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { type GlobalOptions, open, reach, stopRequest, untilStopped } from './context.ts'
import { listenNear } from './http.ts'
import { openInBrowser } from './open-browser.ts'
import { outputOf } from './output.ts'
import { wholeNumber } from './parts.ts'

export interface UiCommand extends GlobalOptions {
  readonly port?: string
  readonly role: string
  /** False: `--no-open`. */
  readonly open?: boolean
}

const ROLES = ['viewer', 'operator', 'admin'] as const
const PORT = 8080
const ASK_MS = 3000

export async function runUi(options: UiCommand): Promise<void> {
  const output = outputOf(options.json === true)
  const role = ROLES.find((one) => one === options.role)
  if (!role) throw new InvalidError(`--role must be viewer, operator or admin, got ${options.role}`)
  // Also where it is not needed: what is no port is a mistake.
  const port = options.port === undefined ? undefined : wholeNumber('--port', options.port)
  const show = (url: string): void => {
    output.event('console', { url }, `console  ${url}/`)
    if (options.open !== false && !output.json && process.stdout.isTTY) openInBrowser(url)
  }
  const { dev } = reach(options)
  if (dev) {
    await mustServeConsole(dev.http)
    if (port !== undefined)
      output.note(
        'The flowstone dev of this folder serves it, where it does; --port is for one beside it: add --server.',
      )
    show(dev.http)
    return
  }
  using stop = stopRequest()
  // Gates may be reached from outside. This server is for whoever sits here.
  delete process.env.FLOWSTONE_BASE_URL
  await using flow = await open(options)
  // What is not there would show an empty page.
  await flow.runs({ limit: 1 })
  await using server = await listenNear(flow, { console: true, api: { open: role } }, options.port, PORT)
  show(server.url)
  output.note(
    `${role === 'viewer' ? 'It only shows; --role operator lets you act.' : `You are ${role}.`} Stop with Ctrl-C.`,
  )
  await untilStopped(flow, stop)
}

async function mustServeConsole(url: string): Promise<void> {
  const answer = await fetch(url, { signal: AbortSignal.timeout(ASK_MS) }).catch(() => undefined)
  await answer?.body?.cancel()
  if (answer?.ok && answer.headers.get('content-type')?.startsWith('text/html')) return
  throw new FlowStoneError(
    'not_found',
    `the flowstone dev of this folder serves no console at ${url}; name a server with --server to start another one`,
  )
}
