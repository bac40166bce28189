/**
 * Who asks the API: the holder of an API key, or whoever reaches a server that is open to him. The
 * latter is protected from pages of other sites, which a browser of his may show.
 */

import { type ApiKey, type ApiKeyAction, type ApiKeyRole, ApiKeys, rolesActions } from '../shared/api-keys.ts'
import { HttpProblem } from '../shared/problem.ts'
import type { Caller } from './route.ts'

export interface AccessOptions {
  readonly apiKeys: readonly ApiKey[] | undefined
  /** What may be done without a key. */
  readonly open: ApiKeyRole | undefined
  /** Where this is reached from outside. */
  readonly baseUrl: string | undefined
}

/** Who has no key is this one. */
const NOBODY = 'local'
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?$/i

export type Access = (request: Request) => Caller

/** Throws the problems `unauthorized` and `cross_site`; InvalidError for keys that cannot be. */
export function accessOf({ apiKeys, open, baseUrl }: AccessOptions): Access {
  const keys = apiKeys === undefined ? undefined : new ApiKeys(apiKeys)
  const actions = open === undefined ? undefined : rolesActions('api.open', open)
  return (request) => {
    const authorization = request.headers.get('authorization')
    if (actions === undefined || authorization !== null) {
      const key = keys?.find(authorization, Date.now())
      if (!key) throw new HttpProblem('unauthorized')
      return key
    }
    checkSite(request, baseUrl)
    return callerWith(actions)
  }
}

function callerWith(actions: readonly ApiKeyAction[]): Caller {
  return { id: NOBODY, may: (action) => actions.includes(action), covers: () => true, seesAll: true }
}

/**
 * A browser may be made to ask by a page of another site. It says so, or its Origin does. A name of
 * that site may also lead here (DNS rebinding): then the Host header is not ours.
 */
function checkSite(request: Request, baseUrl: string | undefined): void {
  const { host } = new URL(request.url)
  const ours = baseUrl === undefined ? undefined : new URL(baseUrl).host
  if (host !== ours && !LOOPBACK.test(host)) throw new HttpProblem('cross_site')
  const site = request.headers.get('sec-fetch-site')
  if (site !== null && site !== 'same-origin' && site !== 'none') throw new HttpProblem('cross_site')
  const origin = request.headers.get('origin')
  if (origin === null) return
  const from = URL.canParse(origin) ? new URL(origin).host : ''
  if (from !== host && from !== ours) throw new HttpProblem('cross_site')
}

/** Whether only this machine reaches a server that listens there. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host.includes(':') && !host.startsWith('[') ? `[${host}]` : host)
}
