/** Serves runs over HTTP in a process of its own. */
import { serveGates } from '../../../src/http/index.ts'
import { begin, tell } from './child.ts'

const { flow, settings } = await begin()
const hash = settings.apiKeyHash ?? ''
const server = await serveGates(flow, { port: 0, apiKeys: [{ id: 'shop', hash, assets: ['*/*'] }] })
tell('ready', { url: server.url })
