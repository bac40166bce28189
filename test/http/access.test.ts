import { expect, it } from 'vitest'
import { devServe } from '../../src/cli/http.ts'
import { accessOf } from '../../src/http/api/access.ts'
import { type ApiHandlerOptions, apiHandler } from '../../src/http/api/handler.ts'
import type { ApiFlow } from '../../src/http/api/route.ts'
import { BASE, ROUTES } from '../../src/http/api/table.ts'
import { type ApiKeyRole, newApiKey } from '../../src/http/shared/api-keys.ts'

const PUBLIC = 'https://flows.example.com'
const { key, hash } = newApiKey()
const apiKeys = [{ id: 'ops', hash, assets: ['*/*'], role: 'admin' as const }]

/** A flow that nothing may be asked of. */
function untouched(baseUrl?: string): ApiFlow {
  const refuse = new Proxy({}, { get: (_, name) => expect.fail(`the flow was asked for ${String(name)}`) })
  const flow = { gates: { baseUrl }, inspect: refuse, runs: refuse, scatter: refuse, schedules: refuse, at: refuse }
  return flow as unknown as ApiFlow
}

/** How each route answers, reads and acts. */
async function statuses(options: ApiHandlerOptions, url: string, headers: Record<string, string>): Promise<number[]> {
  const handler = apiHandler(untouched(), { rateLimit: { address: false, key: false }, ...options })
  const paths = [...ROUTES.map(({ method, path }) => [method, path] as const), ['GET', '/openapi.json'] as const]
  const answers = paths.map(async ([method, path]) => {
    const { status } = await handler(new Request(`${url}${BASE}${path}`, { method, headers }))
    return status
  })
  return [...new Set(await Promise.all(answers))]
}

it('no route answers a request without a key that a proxy has passed on', async () => {
  for (const [name, value] of [
    ['X-Forwarded-For', '203.0.113.9'],
    ['X-Forwarded-Host', 'flows.example.com'],
    ['X-Forwarded-Proto', 'https'],
    ['Forwarded', 'for=203.0.113.9'],
    ['X-Real-IP', '203.0.113.9'],
    ['Via', '1.1 proxy'],
    ['CF-Connecting-IP', ''],
  ] as const)
    for (const open of ['admin', 'viewer'] as const)
      expect(await statuses({ open }, 'http://127.0.0.1:8080', { [name]: value }), `${name}, ${open}`).toEqual([401])
})

it('no route answers a page of another site, nor a name of one that leads here', async () => {
  const here = 'http://localhost:8080'
  for (const [url, headers] of [
    [here, { 'Sec-Fetch-Site': 'cross-site' }],
    [here, { 'Sec-Fetch-Site': 'same-site' }],
    [here, { Origin: 'https://evil.example' }],
    [here, { Origin: 'http://localhost:3000' }],
    [here, { Origin: 'null' }],
    ['http://evil.example:8080', {}],
    ['http://evil.example:8080', { Origin: 'http://evil.example:8080', 'Sec-Fetch-Site': 'same-origin' }],
    ['http://127.0.0.1.evil.example:8080', {}],
    ['http://localhost.evil.example', {}],
    ['http://192.168.1.5:8080', {}],
  ] as const)
    expect(await statuses({ open: 'admin' }, url, headers), `${url} ${JSON.stringify(headers)}`).toEqual([403])
})

it('a server that others reach must have keys, and is open to reading at most', () => {
  const handlerOf = (flowUrl: string | undefined, options: ApiHandlerOptions) => () =>
    apiHandler(untouched(flowUrl), options)
  for (const open of ['admin', 'operator'] satisfies ApiKeyRole[]) {
    for (const more of [{}, { apiKeys }]) {
      expect(handlerOf(undefined, { open, ...more, trustProxy: 1 })).toThrow(/trustProxy.*give apiKeys.*viewer/)
      expect(handlerOf(undefined, { open, ...more, trustProxy: ['loopback'] })).toThrow(/trustProxy/)
      expect(handlerOf(undefined, { open, ...more, baseUrl: PUBLIC })).toThrow(/baseUrl is https:/)
      expect(handlerOf(PUBLIC, { open, ...more })).toThrow(/baseUrl is https:/)
    }
    expect(handlerOf('http://localhost:8080', { open, trustProxy: 0 })).not.toThrow()
    expect(handlerOf(PUBLIC, { open, trustProxy: [], baseUrl: 'http://[::1]:8080' })).not.toThrow()
  }
  expect(handlerOf(PUBLIC, { open: 'viewer', trustProxy: 1 })).not.toThrow()
  expect(handlerOf(PUBLIC, { apiKeys, trustProxy: 1 })).not.toThrow()
})

it('who has a key is answered through a proxy, and a viewer through one that is known', () => {
  const passed = { 'X-Forwarded-For': '203.0.113.9' }
  const ask = (url: string, headers: Record<string, string>) => new Request(url, { headers })
  const none = { apiKeys: undefined, open: undefined, baseUrl: undefined, trustProxy: undefined }
  const local = accessOf({ ...none, apiKeys, open: 'admin' })
  expect(local(ask('http://127.0.0.1', { ...passed, Authorization: `Bearer ${key}` })).id).toBe('ops')
  expect(local(ask('http://127.0.0.1', {})).id).toBe('local')
  const known = accessOf({ ...none, open: 'viewer', baseUrl: PUBLIC, trustProxy: 1 })
  expect(known(ask(PUBLIC, { ...passed, Origin: PUBLIC, 'Sec-Fetch-Site': 'same-origin' })).may('read')).toBe(true)
  expect(known(ask(PUBLIC, passed)).may('start')).toBe(false)
})

it('dev serves API and console to this machine, and neither where others may reach it', () => {
  const notes: string[] = []
  const note = (line: string): void => void notes.push(line)
  expect(devServe({}, undefined, { note })).toEqual({ api: { open: 'admin' }, console: true })
  expect(devServe({ api: true, apiKeys }, PUBLIC, { note })).toEqual({ console: true, api: true, apiKeys })
  expect(notes).toEqual([])
  expect(devServe({}, PUBLIC, { note })).toEqual({})
  expect(devServe({ trustProxy: 1 }, undefined, { note })).toEqual({ trustProxy: 1 })
  expect(notes).toEqual([
    expect.stringContaining(`No API and no console: its baseUrl is ${PUBLIC}`),
    expect.stringContaining('trustProxy names proxies in front'),
  ])
})
